"""The sampler of Open-Sora v1.2: Euler steps of rectified flow, with guidance and frames that are given."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from opensora.registry import SCHEDULERS
from opensora.schedulers.rf.rectified_flow import add_noise, frame_tables, timestep_transform
from toca.engine.cache import NO_CACHE, RunCache

Noise = Callable[[int, int], Tensor]  # (step, item) -> (C, T, H, W)
Callback = Callable[[int, Tensor], None]  # (step, latents (n, C, T, H, W) after it)


@SCHEDULERS.register_module("rflow")
@dataclass(frozen=True)
class RFLOW:
    """Rectified flow: x_t = (1 - t/1000) x_0 + (t/1000) noise, the network predicts v = x_0 - noise.

    use_discrete_timesteps: round the times before the transform. use_timestep_transform: spend more steps near the noise, the more the
    larger and longer the video. Raises ValueError on settings that make no sense.
    """

    num_sampling_steps: int = 10
    num_timesteps: int = 1000
    cfg_scale: float = 4.0
    use_discrete_timesteps: bool = False
    use_timestep_transform: bool = False

    def __post_init__(self) -> None:
        for name in ("num_sampling_steps", "num_timesteps"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {getattr(self, name)!r}")
        if not isinstance(self.cfg_scale, int | float) or not math.isfinite(self.cfg_scale):
            raise ValueError(f"cfg_scale must be a number, got {self.cfg_scale!r}")
        for name in ("use_discrete_timesteps", "use_timestep_transform"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")

    def timesteps(self, num_frames: int, height: int, width: int) -> list[float]:
        """The times of a video of this size in pixels, falling from `num_timesteps`."""
        times = [(1 - i / self.num_sampling_steps) * self.num_timesteps for i in range(self.num_sampling_steps)]
        if self.use_discrete_timesteps:
            times = [float(round(t)) for t in times]
        if self.use_timestep_transform:
            times = [timestep_transform(t, num_frames, height, width, self.num_timesteps) for t in times]
        return times

    @torch.no_grad()
    def sample(
        self,
        model: Callable[..., Tensor],
        z: Tensor,
        y: Tensor,
        y_null: Tensor,
        *,
        num_frames: int,
        height: int,
        width: int,
        model_args: Mapping[str, Any] | None = None,
        mask: Tensor | None = None,
        noise: Noise | None = None,
        guidance_scale: float | None = None,
        cache: RunCache = NO_CACHE,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Latents (n, C, T, H, W) in float32 from noise z of that shape; where frames are given, z holds them.

        model: (x (2n, C, T, H, W), t (2n,), y=(2n, ...), x_mask=(2n, T) or None, cache=cache, **model_args) -> (2n, C or 2C, T, H, W);
        prompts come first, y_null last, and of 2C channels the first C are the velocity.
        num_frames, height, width: of the video, for the timestep transform.
        mask: (n, T), 1: generate a frame, 0: keep it, between: edit it from that level of noise on, which `noise` is drawn for.
        callback: called after every step, for previews; what it raises ends the run.
        Raises ValueError if a mask needs noise and there is none.
        """
        scale = self.cfg_scale if guidance_scale is None else guidance_scale
        times = self.timesteps(num_frames, height, width)
        t = torch.tensor(times, device=z.device)[:, None].expand(-1, 2 * len(z))
        text = torch.cat((y, y_null))
        z, channels = z.float(), z.shape[1]
        active, entering = frame_tables(mask, times, self.num_timesteps)
        if entering is not None and entering.any() and noise is None:
            raise ValueError("this mask edits frames from a level of noise on: give the noise")
        on_device = None if active is None else active.to(z.device)[:, :, None, :, None, None]  # (steps, n, 1, T, 1, 1)
        schedule = itertools.pairwise([*times, 0.0])
        for i, (now, then) in enumerate(tqdm(schedule, total=len(times), disable=not progress, leave=False, desc="denoising")):
            given, generated = z, None if active is None or active[i].all() else on_device[i]
            if entering is not None and entering[i].any():
                z = enter(z, entering[i], now / self.num_timesteps, lambda item, step=i: noise(step, item))
            x_mask = None if generated is None else generated[:, 0, :, 0, 0].repeat(2, 1)
            out = model(torch.cat((z, z)), t[i], y=text, x_mask=x_mask, cache=cache, **(model_args or {}))
            v_text, v_null = out[:, :channels].float().chunk(2)
            z = z + (v_null + scale * (v_text - v_null)) * ((now - then) / self.num_timesteps)
            if generated is not None:
                z = torch.where(generated, z, given)
            if callback:
                callback(i, z)
        return z


def enter(z: Tensor, frames: Tensor, level: float, noise: Callable[[int], Tensor]) -> Tensor:
    """z (n, C, T, H, W) with noise of a level on the frames (n, T) that are edited from here on. noise: (item) -> (C, T, H, W)."""
    z = z.clone()
    for item, chosen in enumerate(frames):
        if chosen.any():
            index = chosen.nonzero().flatten().to(z.device)
            z[item, :, index] = add_noise(z[item, :, index], noise(item).to(z)[:, index], level)
    return z
