"""The networks that make pictures of class labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dit.flags import RunSettings
from dit.sampler import Callback, Sampler
from dit.upstream_stream import UpstreamStream
from dit.weights import load_decoder, load_model
from toca.diffusion import create_diffusion
from toca.loading.autoencoder import Decoder
from toca.runs.pictures import check_finite
from toca.runs.seeds import item_generators


@dataclass(frozen=True)
class Pipeline:
    """A DiT and what decodes its latents, on one device.

    sampler: the network, and how it is run.
    decode: latents to pixels.
    """

    sampler: Sampler
    decode: Decoder

    @classmethod
    def load(cls, settings: RunSettings, device: torch.device, progress: bool = False) -> Pipeline:
        """Raises ValueError or OSError if a file does not fit."""
        return cls(make_sampler(settings, load_model(settings, device), progress), load_decoder(settings.vae, device))

    def pictures(self, seed: int, indices: Sequence[int], labels: Sequence[int] | None = None, callback: Callback | None = None) -> Tensor:
        """Pictures (B, 3, H, W) around [-1, 1] whose noise comes from (seed, index) alone, and so does the label where none is given."""
        generators = item_generators(seed, indices)
        if labels is None:
            classes = self.sampler.model.num_classes
            labels = [int(torch.randint(classes, (1,), generator=generator)) for generator in generators]
        y = torch.tensor(labels, device=self.sampler.device)
        return self.decoded(self.sampler.sample(y, generators, callback))

    def decoded(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) around [-1, 1]. Raises ValueError if the latents are not finite."""
        check_finite(latents, "the latents")
        return self.decode(latents.float())

    def upstream_stream(self, seed: int, batch: int, always_guided: bool = False) -> UpstreamStream:
        return UpstreamStream(self.sampler, seed, batch, self.sampler.device, always_guided)


def make_sampler(settings: RunSettings, model: torch.nn.Module, progress: bool = False) -> Sampler:
    return Sampler(
        model,
        create_diffusion(str(settings.run.num_steps)),
        settings.run.method,
        ddim=settings.ddim,
        solver=settings.solver,
        eta=settings.eta,
        cfg_scale=settings.cfg_scale,
        guide_all_channels=settings.guide_all_channels,
        progress=progress,
    )
