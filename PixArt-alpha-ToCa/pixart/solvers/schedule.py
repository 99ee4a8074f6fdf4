"""The variance-preserving schedule in continuous time, on which both solvers step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toca.diffusion.gaussian_diffusion import linear_betas

TRAINED_STEPS = 1000
FIRST, LAST = 1.0, 1 / TRAINED_STEPS  # continuous time runs from noise to (almost) data


@dataclass(frozen=True)
class Times:
    """Points on the schedule, noisiest first: t (S + 1,) and, each (S + 1,) float64, alpha, sigma and lam = ln(alpha / sigma)."""

    t: np.ndarray

    @cached_property
    def log_alpha(self) -> np.ndarray:
        """Piecewise linear between the trained timesteps j / 1000, j = 1..1000, where it is 1/2 sum ln(1 - beta)."""
        trained = np.arange(1, TRAINED_STEPS + 1) / TRAINED_STEPS
        return np.interp(self.t, trained, 0.5 * np.cumsum(np.log1p(-linear_betas(TRAINED_STEPS))))

    @cached_property
    def alpha(self) -> np.ndarray:
        return np.exp(self.log_alpha)

    @cached_property
    def sigma(self) -> np.ndarray:
        return np.sqrt(-np.expm1(2 * self.log_alpha))

    @cached_property
    def lam(self) -> np.ndarray:
        return self.log_alpha - np.log(self.sigma)

    @cached_property
    def timesteps(self) -> np.ndarray:
        """What the network is told, 999 down to 0, fractional: float32 (S + 1,)."""
        return ((self.t - LAST) * TRAINED_STEPS).astype(np.float32)


def uniform_times(num_steps: int) -> Times:
    """S + 1 evenly spaced times for S steps. Raises ValueError if there is no step."""
    if num_steps < 1:
        raise ValueError(f"a sampler makes at least 1 step, got {num_steps}")
    return Times(np.linspace(FIRST, LAST, num_steps + 1))
