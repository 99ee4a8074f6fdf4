"""The sampling run of a DiT: from class labels and noise to latents, under a caching method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dit.model import DiT
from dit.spec import dit_spec
from toca.diffusion import GaussianDiffusion, linear_betas
from toca.diffusion.solvers import diffusion_grid, solve
from toca.engine.cache import Cache
from toca.methods import Method
from toca.planning.plan import Plan
from toca.planning.spec import ModelSpec

TRAINED_ALPHAS = np.cumprod(1 - linear_betas(1000))
Noise = Callable[[int], Tensor]  # step index -> standard normal draws (B, C, H, W)
Callback = Callable[[int, Tensor], None]  # after every step: its place in the run, from 0, and x (B, C, H, W); an exception ends the run


@dataclass(frozen=True)
class Sampler:
    """A DiT, a diffusion and how to run them.

    ddim: DDIM with `eta`, else DDPM.
    solver: (solver, grid) of `toca.diffusion.solvers` in place of both, on as many steps.
    cfg_scale: guidance, 1 for none.
    guide_all_channels: guide every noise channel, not the first three.
    """

    model: DiT
    diffusion: GaussianDiffusion
    method: Method
    ddim: bool = True
    solver: tuple[str, str] | None = None
    eta: float = 0.0
    cfg_scale: float = 1.5
    guide_all_channels: bool = False
    clip_denoised: bool = False
    progress: bool = False

    @property
    def guided(self) -> bool:
        return self.cfg_scale != 1.0

    @property
    def spec(self) -> ModelSpec:
        return dit_spec(self.model.config, "ddim" if self.ddim or self.solver else "ddpm")

    @property
    def plan(self) -> Plan:
        return self.method.plan(self.spec, self.diffusion.num_timesteps)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents, or pixels, that the model denoises."""
        size = self.model.config.input_size
        return (self.model.in_channels, *((size, size) if isinstance(size, int) else size))

    @property
    def device(self) -> torch.device:
        return self.model.pos_embed.device

    def sample(self, labels: Tensor, generators: Sequence[torch.Generator], callback: Callback | None = None) -> Tensor:
        """Latents (or pixels) (B, C, H, W) of class labels (B,), each from its own CPU generator: no image depends on its batch."""

        def noise(step: int) -> Tensor:
            draws = torch.stack([torch.randn(self.input_shape, generator=generator) for generator in generators])
            return draws.pin_memory().to(labels.device, non_blocking=True) if labels.is_cuda else draws  # pinned: the host does not wait

        seeds = [generator.initial_seed() for generator in generators]
        return self.run(labels, noise(self.diffusion.num_timesteps), noise, seeds, callback=callback)

    @torch.no_grad()
    def run(
        self,
        labels: Tensor,
        z: Tensor,
        noise: Noise,
        seeds: Sequence[int] | None = None,
        upstream_noise: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        """The sampling loop from latents z (B, C, H, W) on the device of the labels (B,); returns the final latents.

        noise: asked at the steps that need noise, or at every step with `upstream_noise`. seeds: for methods that draw tokens.
        """
        if self.solver:
            return self._solve(self.solver, labels, z, seeds, callback)
        model, dtype, rows = self.model, self.model.pos_embed.dtype, 2 if self.guided else 1
        options = dict(clip_denoised=self.clip_denoised, progress=self.progress, upstream_noise=upstream_noise)
        loop = self.diffusion.p_sample_loop_progressive
        if self.ddim:
            loop, options["eta"] = self.diffusion.ddim_sample_loop_progressive, self.eta
        forward, kwargs = self._network(labels)
        with Cache(self.spec, self.method, self.diffusion.num_timesteps, seeds=seeds) as cache:
            timesteps = torch.tensor(self.diffusion.timestep_map[::-1], device=z.device)
            model.precompute_modulation(cache, timesteps, kwargs["y"])
            steps = loop(
                lambda x, t, **kw: forward(x.to(dtype), t, **kw),  # the sampler's own arithmetic stays in float32
                (rows * len(z), *z.shape[1:]),
                z.repeat(rows, 1, 1, 1),
                model_kwargs=dict(kwargs, cache=cache),
                noise_fn=lambda step, _: noise(step).repeat(rows, 1, 1, 1),
                **options,
            )
            for place, step in enumerate(steps):
                x = step["sample"][: len(labels)]
                if callback:
                    callback(place, x)
        return x

    def _network(self, labels: Tensor) -> tuple[Callable[..., Tensor], dict[str, Any]]:
        """The forward of all rows, with guidance if it is asked for, and its conditions."""
        if not self.guided:
            return self.model.forward, dict(y=labels)
        y = torch.cat([labels, torch.full_like(labels, self.model.num_classes)])
        return self.model.forward_with_cfg, dict(y=y, cfg_scale=self.cfg_scale, guide_all_channels=self.guide_all_channels)

    def _solve(self, solver: tuple[str, str], labels: Tensor, z: Tensor, seeds: Sequence[int] | None, callback: Callback | None) -> Tensor:
        """A good solver on its grid, which tells the network fractions of timesteps too."""
        name, grid = solver[0], diffusion_grid(solver[1], self.diffusion.num_timesteps, TRAINED_ALPHAS)
        model, rows, (forward, kwargs) = self.model, 2 if self.guided else 1, self._network(labels)
        times = torch.from_numpy(grid.times).float().to(z.device)
        with Cache(self.spec, self.method, grid.num_steps, seeds=seeds) as cache:
            model.precompute_modulation(cache, times, kwargs["y"])

            def network(x: Tensor, step: int) -> Tensor:
                t = times[step].expand(rows * len(x))
                out = forward(x.repeat(rows, 1, 1, 1).to(model.pos_embed.dtype), t, **kwargs, cache=cache)
                return out[: len(x), : model.in_channels].float()

            return solve(network, z.float(), name, grid, progress=self.progress, callback=callback)
