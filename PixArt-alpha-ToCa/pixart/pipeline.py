"""The networks that make pictures of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from pixart.flags import RunSettings
from pixart.prompts import Prompt
from pixart.sampler import Sampler
from pixart.t5 import T5Embedder, encoder_identity
from pixart.text_cache import TextCache, encode_missing
from pixart.weights import load_model
from toca.loading.autoencoder import Decoder, decoder, load_autoencoder
from toca.runs.pictures import to_uint8
from toca.runs.programs import DTYPES
from toca.runs.seeds import item_generators


@dataclass(frozen=True)
class Pipeline:
    """PixArt and the autoencoder on the device; T5 only while texts are encoded.

    sampler: the network, and how it is run.
    decode: latents to pixels.
    texts: embedded texts on disk.
    load_t5: the encoder of texts that are not there yet.
    """

    sampler: Sampler
    decode: Decoder
    texts: TextCache
    load_t5: Callable[[], T5Embedder]

    @classmethod
    def load(cls, settings: RunSettings, device: torch.device, progress: bool = False) -> Pipeline:
        """Raises ValueError or OSError if a file does not fit."""
        advice = "give its folder or hub name with --vae; `python tools/download.py --vae` fetches the published one"
        decode = decoder(load_autoencoder(settings.vae, device, advice), device)
        model = load_model(settings.checkpoint, settings.image_size, device, DTYPES[settings.dtype], settings.ema)
        run, length, width = settings.run, model.config.model_max_length, model.config.caption_channels

        def load_t5() -> T5Embedder:
            where = torch.device(settings.t5_device) if settings.t5_device else device
            encoder = T5Embedder(settings.t5, where, settings.t5_precision, length)
            if encoder.width != width:
                raise ValueError(f"{settings.t5} gives features of width {encoder.width}; the model reads {width}")
            return encoder

        return cls(
            Sampler(model, run.method, settings.sampling_algo, run.num_steps, settings.cfg_scale, progress),
            decode,
            TextCache(settings.text_cache, encoder_identity(settings.t5, settings.t5_precision), length),
            load_t5,
        )

    def encode(self, texts: Sequence[str], rank: int = 0, world: int = 1) -> None:
        """Make sure that this process's share of the texts is embedded on disk. Raises ValueError if T5 is missing or is another one."""
        encode_missing(self.texts, texts, self.load_t5, rank=rank, world=world)

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
