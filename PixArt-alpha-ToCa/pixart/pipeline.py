"""The networks that make pictures of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pixart.flags import RunSettings
from pixart.prompts import Prompt
from pixart.sampler import Sampler
from pixart.t5 import T5Embedder
from pixart.text_cache import TextCache, encode_missing
from pixart.weights import VAE_ADVICE, load_model
from toca.loading.autoencoder import Decoder, decoder, load_autoencoder
from toca.runs.pictures import to_uint8
from toca.runs.programs import DTYPES
from toca.runs.seeds import item_generators


def embed(settings: RunSettings, device: torch.device, rank: int = 0, world: int = 1) -> None:
    """Make sure that this process's share of a run's texts is on disk, before the other networks need the device's memory."""

    def load() -> T5Embedder:
        where = torch.device(settings.t5_device) if settings.t5_device else device
        return T5Embedder(settings.t5, where, settings.t5_precision, texts.length)

    texts = settings.embedded_texts()
    encode_missing(texts, settings.texts, load, rank=rank, world=world)


@dataclass(frozen=True)
class Pipeline:
    """PixArt and the autoencoder on the device.

    sampler: the network, and how it is run.
    decode: latents to pixels.
    texts: embedded texts on disk, see `embed`.
    """

    sampler: Sampler
    decode: Decoder
    texts: TextCache

    @classmethod
    def load(cls, settings: RunSettings, device: torch.device, progress: bool = False) -> Pipeline:
        """Of a run whose texts are embedded. Raises ValueError or OSError if a file does not fit."""
        run, texts = settings.run, settings.embedded_texts()
        null_text = texts.get("") if settings.diffusers else None
        model = load_model(settings.checkpoint, settings.image_size, device, DTYPES[settings.dtype], settings.ema, null_text)
        decode = decoder(load_autoencoder(settings.vae, device, VAE_ADVICE), device)
        return cls(Sampler(model, run.method, settings.sampling_algo, run.num_steps, settings.cfg_scale, progress), decode, texts)

    def pictures(self, prompts: Sequence[Prompt], seed: int, indices: Sequence[int]) -> list[np.ndarray]:
        """A picture (H, W, 3) uint8 of each prompt, whose noise comes from (seed, index). Those of one size are sampled together."""
        pictures: dict[int, np.ndarray] = {}
        sizes = {(p.size.height, p.size.width): p.size for p in prompts}
        for key, size in sizes.items():
            together = [i for i, p in enumerate(prompts) if (p.size.height, p.size.width) == key]
            y, mask = self.texts.batch([prompts[i].text for i in together])
            latents = self.sampler.sample(y, mask, size, item_generators(seed, [indices[i] for i in together]))
            pictures |= zip(together, to_uint8(self.decode(latents.float())))
        return [pictures[i] for i in range(len(prompts))]
