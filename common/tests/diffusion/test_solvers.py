"""On data of known spread the exact prediction is known, and where every noise ends: solvers must come near it, at their order."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from toca.cli import flags
from toca.diffusion.gaussian_diffusion import linear_betas
from toca.diffusion.solvers import GRIDS, SOLVERS, Grid, diffusion_grid, flow_grid, solve, solver

ABAR = np.cumprod(1 - linear_betas(1000))
SPREAD = 0.5  # of data N(0, SPREAD^2)


def noise_of(x: Tensor, time: float) -> Tensor:
    """E[noise | x] at a timestep, which may be a fraction."""
    levels = np.sqrt((1 - ABAR) / ABAR)
    sigma = math.exp(np.interp(time, np.arange(1000), np.log(levels)))
    abar = 1 / (1 + sigma**2)
    return x * math.sqrt(1 - abar) / (abar * SPREAD**2 + 1 - abar)


def exact(x: Tensor) -> Tensor:
    """Where the probability flow takes noise from the noisiest level: spreads map onto spreads."""
    return x * SPREAD / math.sqrt(ABAR[-1] * SPREAD**2 + 1 - ABAR[-1])


def velocity_of(x: Tensor, s: float) -> Tensor:
    """E[noise - x_0 | x] in a rectified flow."""
    return x * (s - (1 - s) * SPREAD**2) / (s**2 + (1 - s) ** 2 * SPREAD**2)


def error(name: str, grid: str, steps: int) -> float:
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    levels = diffusion_grid(grid, steps, ABAR)
    return (solve(lambda x, step: noise_of(x, levels.times[step]), x, name, levels) - exact(x)).abs().max().item()


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("grid", ["karras", "exponential"])
def test_second_order(name: str, grid: str) -> None:
    coarse, fine = error(name, grid, 20), error(name, grid, 80)
    assert fine < 6e-3 and coarse / fine > 8  # 16 at second order, 4 at first


@pytest.mark.parametrize("name", SOLVERS)
def test_second_order_of_flows(name: str) -> None:
    x = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    errors = []
    for levels in (flow_grid("quadratic", n) for n in (20, 80)):
        found = solve(lambda x, step, at=levels.times: velocity_of(x, at[step]), x, name, levels, flow=True)
        errors.append((found - SPREAD * x).abs().max().item())
    assert errors[1] < 6e-3 and errors[0] / errors[1] > 8


@pytest.mark.parametrize("grid", GRIDS)
def test_a_grid_falls_from_the_noisiest_level_to_the_picture(grid: str) -> None:
    found = diffusion_grid(grid, 17, ABAR)
    assert found.num_steps == 17 and (np.diff(found.sigmas) < 0).all() and found.sigmas[-1] == 0
    assert found.times[0] == pytest.approx(999) and (np.diff(found.times) < 0).all() and found.times[-1] >= 0


def test_the_karras_grid_is_diffusers() -> None:
    from diffusers import UniPCMultistepScheduler

    theirs = UniPCMultistepScheduler(beta_start=1e-4, beta_end=0.02, use_karras_sigmas=True)
    theirs.set_timesteps(12)
    ours = diffusion_grid("karras", 12, ABAR)
    np.testing.assert_allclose(ours.sigmas, theirs.sigmas.numpy(), rtol=1e-4)
    np.testing.assert_allclose(ours.times.round(), theirs.timesteps.numpy())


def test_a_shifted_flow_is_fluxs() -> None:
    mu = 1.15
    s = flow_grid("uniform", 4, math.exp(mu)).sigmas
    np.testing.assert_allclose(s[1:-1], [math.exp(mu) / (math.exp(mu) + 1 / t - 1) for t in (0.75, 0.5, 0.25)])


def test_no_step_is_looked_up_by_its_time() -> None:
    """Two times that round alike are two steps."""
    grid = Grid(np.array([1.0, 0.9, 0.8, 0.0]), np.array([100.2, 100.1, 100.0]))
    seen: list[int] = []
    solve(lambda x, step: seen.append(step) or x, torch.ones(1, 1), "unipc", grid)
    assert seen == [0, 1, 2]


def test_command_lines_know_them() -> None:
    assert flags.SOLVERS == SOLVERS and tuple(GRIDS) == flags.GRIDS


def test_what_there_is_not() -> None:
    with pytest.raises(ValueError, match="unknown grid 'log': choose from karras"):
        diffusion_grid("log", 3, ABAR)
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        diffusion_grid("karras", 0, ABAR)
    with pytest.raises(ValueError, match=r"none of a rectified flow: choose from uniform"):
        flow_grid("karras", 3)
    with pytest.raises(ValueError, match=r"unknown solver 'euler': choose from dpm\+\+, unipc"):
        solver("euler", flow_grid("uniform", 3))
