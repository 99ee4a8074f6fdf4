"""Good solvers on good grids: what a caching method has to beat. The solvers are those of diffusers; a grid of noise levels is data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm.auto import tqdm

Floats = NDArray[np.float64]
SOLVERS = ("dpm++", "unipc")  # DPM-Solver++(2M) (arXiv 2211.01095), UniPC-2 (arXiv 2302.04867)
RHO = 7.0


def _karras(u: Floats, levels: Floats) -> Floats:
    """Evenly in sigma^(1/7) (Karras et al., arXiv 2206.00364, equation 5)."""
    low, high = levels[0] ** (1 / RHO), levels[-1] ** (1 / RHO)
    return (low + u * (high - low)) ** RHO


def _exponential(u: Floats, levels: Floats) -> Floats:
    return np.exp(np.log(levels[0]) + u * (np.log(levels[-1]) - np.log(levels[0])))


def _uniform(u: Floats, levels: Floats) -> Floats:
    """Evenly in t, as DDIM."""
    return np.interp(u * (len(levels) - 1), np.arange(len(levels)), levels)


def _quadratic(u: Floats, levels: Floats) -> Floats:
    """t = T u^2: finer towards the picture."""
    return _uniform(u**2, levels)


GRIDS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "karras": _karras,
    "quadratic": _quadratic,
    "exponential": _exponential,
    "uniform": _uniform,
}


@dataclass(frozen=True)
class Grid:
    """Noise levels of a run, from noise to picture.

    sigmas: (S + 1,), sqrt((1 - abar) / abar), or the share of noise in a rectified flow; the last one is 0.
    times: (S,), what the network is told: timesteps, fractions of one among them, or the share of noise.
    """

    sigmas: Floats
    times: Floats

    @property
    def num_steps(self) -> int:
        return len(self.times)


def diffusion_grid(name: str, num_steps: int, alphas_cumprod: Floats) -> Grid:
    """A grid of a diffusion (variance preserving) with these abar_t, t = 0..T-1, from the noisiest level to the first and then 0.

    Raises ValueError on an unknown name or fewer than two steps.
    """
    _check(name, num_steps)
    levels = np.sqrt((1 - alphas_cumprod) / alphas_cumprod)
    if num_steps == 1:
        sigmas = levels[-1:]
    elif name in ("uniform", "quadratic"):  # diffusers' "linspace": the step to 0 is one of the even ones
        sigmas = GRIDS[name](np.linspace(1, 0, num_steps + 1)[:-1], levels)
    else:
        sigmas = GRIDS[name](np.linspace(1, 0, num_steps), levels)
    times = np.interp(np.log(sigmas), np.log(levels), np.arange(len(levels)))
    return Grid(np.append(sigmas, 0.0), times)


def flow_grid(name: str, num_steps: int, shift: float = 1.0) -> Grid:
    """A grid of a rectified flow x_s = (1 - s) x_0 + s noise, from s = 1 to 0, evenly ("uniform") or as its square ("quadratic").

    shift: s -> shift s / (1 + (shift - 1) s), e^mu of FLUX. Raises ValueError on another name.
    """
    _check(name, num_steps)
    if name not in ("uniform", "quadratic"):
        raise ValueError(f"grid {name!r} is none of a rectified flow: choose from uniform, quadratic")
    s = np.linspace(1, 0, num_steps + 1) ** (2 if name == "quadratic" else 1)
    s = shift * s / (1 + (shift - 1) * s)
    return Grid(s, s[:-1])


def _check(name: str, num_steps: int) -> None:
    if name not in GRIDS:
        raise ValueError(f"unknown grid {name!r}: choose from {', '.join(GRIDS)}")
    if num_steps < 1:
        raise ValueError(f"a grid needs at least 1 step, got {num_steps}")


def solver(name: str, grid: Grid, flow: bool = False) -> Any:
    """diffusers' scheduler of second order, on the grid. flow: the network predicts noise - x_0 instead of noise.

    Raises ValueError on an unknown name.
    """
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}: choose from {', '.join(SOLVERS)}")
    kind = UniPCMultistepScheduler if name == "unipc" else DPMSolverMultistepScheduler
    options: dict[str, Any] = dict(prediction_type="flow_prediction", use_flow_sigmas=True) if flow else {}
    scheduler = kind(solver_order=2, lower_order_final=True, final_sigmas_type="zero", **options)
    scheduler.set_timesteps(grid.num_steps)
    sigmas = grid.sigmas.copy()
    if flow:
        sigmas[0] = min(sigmas[0], 1 - 1e-6)  # half-logarithmic signal-to-noise ratios of pure noise are infinite
    scheduler.sigmas = torch.from_numpy(sigmas.astype(np.float32))
    scheduler.timesteps = torch.arange(grid.num_steps)  # names of the steps: what the network is told is `grid.times`
    scheduler.num_inference_steps = grid.num_steps
    scheduler._step_index = 0  # looking it up by a timestep would be a wait for the device
    return scheduler


def solve(
    network: Callable[[Tensor, int], Tensor],
    x: Tensor,
    name: str,
    grid: Grid,
    flow: bool = False,
    progress: bool = False,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """From noise to pictures: one network call a step.

    network: (x of unit variance (B, ...), step, whose time is `grid.times[step]`) -> predicted noise, or velocity with `flow`.
    x: (B, ...) standard normal noise, float32.
    callback: told the step and x after every one.
    """
    scheduler = solver(name, grid, flow)
    for step in tqdm(range(grid.num_steps), disable=not progress, desc=name):
        x = scheduler.step(network(x, step), step, x, return_dict=False)[0]
        if callback:
            callback(step, x)
    return x
