"""Classifier-free guidance of the ODE and SDE solvers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

Model = Callable[..., Tensor]  # (R, C, H, W), (R,) float32 timesteps 0..999, (R, 1, L, D) text, **kwargs -> noise (R, C, H, W)
Callback = Callable[[int, Tensor], object]  # after step 0..S-1, with the state (B, C, H, W); an exception ends the run
Noise = Callable[[Tensor, float], Tensor]  # (B, C, H, W) state, timestep -> guided noise (B, C, H, W), float32


def guided_noise(model: Model, condition: Tensor, uncondition: Tensor, cfg_scale: float, model_kwargs: Mapping[str, Any] | None) -> Noise:
    """eps_u + g (eps_c - eps_u), formed in float32 from one pass of rows [unconditional B; conditional B]; g = 1 is one conditional pass.

    condition, uncondition: (B, ...) text. model_kwargs: handed to the model as they are, a cache among them.
    """
    guided = cfg_scale != 1
    y, kwargs = torch.cat([uncondition, condition]) if guided else condition, dict(model_kwargs or {})

    def noise(x: Tensor, timestep: float) -> Tensor:
        rows = torch.cat([x, x]) if guided else x
        t = torch.full((len(rows),), timestep, dtype=torch.float32, device=x.device)
        eps = model(rows, t, y, **kwargs).float()
        if not guided:
            return eps
        eps_uncond, eps_cond = eps.chunk(2)
        return eps_uncond + cfg_scale * (eps_cond - eps_uncond)

    return noise
