"""The sampling run of a PixArt: from embedded texts and noise to latents, under a caching method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pixart.aspect_ratios import Request
from pixart.model import PixArt, trim_text
from pixart.solvers import DPMS, IDDPM, SASolverSampler
from pixart.solvers.guidance import Callback
from pixart.spec import VAE_STRIDE, pixart_spec
from toca.engine.cache import Cache
from toca.methods import Method
from toca.runs.pictures import check_finite

Draws = Callable[[int], Tensor]  # step index -> standard normal draws (B, C, h, w)


@dataclass(frozen=True)
class Sampler:
    """A PixArt and how to run it.

    algorithm: dpm-solver, iddpm or sa-solver.
    num_steps: model calls.
    cfg_scale: guidance; 1 runs without.
    progress: show a bar.
    callback: called after every step with its number and the latents (B, C, h, w).
    """

    model: PixArt
    method: Method
    algorithm: str
    num_steps: int
    cfg_scale: float = 4.5
    progress: bool = False
    callback: Callback | None = None

    @property
    def guided(self) -> bool:
        return self.cfg_scale != 1

    def sample(self, y: Tensor, mask: Tensor, size: Request, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents (B, C, height / 8, width / 8), float32, of texts, each from its own CPU generator.

        y (B, L, D), mask (B, L): on the CPU, see `TextCache.batch`. size: height, width and ratio, the same for all.
        """
        shape = (self.model.config.in_channels, size.height // VAE_STRIDE, size.width // VAE_STRIDE)
        device = self.model.pos_embed.device

        def draws(step: int) -> Tensor:
            noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
            return noise.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else noise.to(device)  # pinned: no waiting

        seeds = [generator.initial_seed() for generator in generators]
        return self.run(y, mask, size, draws(0), draws, seeds)

    @torch.no_grad()
    def run(self, y: Tensor, mask: Tensor, size: Request, z: Tensor, draws: Draws, seeds: Sequence[int] | None = None) -> Tensor:
        """From latents z (B, C, h, w) on the model's device; draws: the noise of the steps that need some."""
        y, mask = trim_text(y, mask)
        cond, uncond = y.to(z.device), self.model.y_embedder.y_embedding[: y.shape[1]].expand(len(y), -1, -1)
        cond, uncond = cond.to(self.model.dtype), uncond.to(self.model.dtype)
        spec = pixart_spec(self.model.config, tuple(z.shape[2:]), y.shape[1], self.guided)
        with Cache(spec, self.method, self.num_steps, seeds=seeds) as cache:
            kwargs = dict(mask=None if mask is None else mask.to(z.device), data_info=self.micro_conditions(size, z), cache=cache)
            loop = {"dpm-solver": self._dpm_solver, "sa-solver": self._sa_solver, "iddpm": self._iddpm}[self.algorithm]
            x = loop(z, cond, uncond, kwargs, draws)
        check_finite(x, "the latents")
        return x

    def micro_conditions(self, size: Request, z: Tensor) -> dict[str, Tensor]:
        """What PixArtMS is told of every picture: the bin's height and width, and its label."""
        sides, ratio = torch.tensor([[size.height, size.width]]).to(z), torch.tensor([[size.ratio]]).to(z)
        return dict(img_hw=sides.expand(len(z), -1), aspect_ratio=ratio.expand(len(z), -1))

    def _dpm_solver(self, z: Tensor, cond: Tensor, uncond: Tensor, kwargs: dict[str, Any], draws: Draws) -> Tensor:
        solver = DPMS(self.model.forward_with_dpmsolver, cond, uncond, self.cfg_scale, kwargs)
        return solver.sample(z, self.num_steps, self.progress, self.callback)

    def _sa_solver(self, z: Tensor, cond: Tensor, uncond: Tensor, kwargs: dict[str, Any], draws: Draws) -> Tensor:
        solver = SASolverSampler(self.model.forward_with_dpmsolver)
        return solver.sample(z, cond, uncond, self.cfg_scale, self.num_steps, kwargs, draws, self.progress, self.callback)

    def _iddpm(self, z: Tensor, cond: Tensor, uncond: Tensor, kwargs: dict[str, Any], draws: Draws) -> Tensor:
        rows, forward, y = 1, self.model.forward, cond
        if self.guided:
            rows, forward, y = 2, self.model.forward_with_cfg, torch.cat([cond, uncond])
            kwargs = kwargs | dict(cfg_scale=self.cfg_scale)
        loop = IDDPM(str(self.num_steps)).p_sample_loop_progressive(
            forward,
            (rows * len(z), *z.shape[1:]),
            z.repeat(rows, 1, 1, 1),
            model_kwargs=kwargs | dict(y=y),
            noise_fn=lambda step, _: draws(step).repeat(rows, 1, 1, 1),
            progress=self.progress,
        )
        for step, out in enumerate(loop):
            x = out["sample"][: len(z)]
            if self.callback:
                self.callback(step, x)
        return x
