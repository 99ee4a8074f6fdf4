"""SA-Solver (Xue et al. 2023): a stochastic Adams predictor and corrector of second order on predictions of the data, one call a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from pixart.solvers.guidance import Callback, Model, guided_noise
from pixart.solvers.schedule import Times, uniform_times

Draws = Callable[[int], Tensor]  # step 1..S -> standard normal draws (B, C, H, W)
NOISY = (0.2, 0.8)  # the times at which tau = 1, and the process is stochastic; else tau = 0


class SASolverSampler:
    """The sampler of a model; see `pixart.solvers.guidance` for what the model is."""

    num_steps = 25

    def __init__(self, model: Model) -> None:
        self.model = model

    @torch.no_grad()
    def sample(
        self,
        x: Tensor,
        condition: Tensor,
        uncondition: Tensor,
        cfg_scale: float,
        steps: int = num_steps,
        model_kwargs: Mapping[str, Any] | None = None,
        draws: Draws | None = None,
        progress: bool = False,
        callback: Callback | None = None,
    ) -> Tensor:
        """From noise x (B, C, H, W) to latents, float32, with `steps` model calls.

        draws: the noise of the stochastic steps, fresh by default. Every step predicts, calls the model there, and corrects with the same
        draw; the last one predicts without noise.
        """
        noise = guided_noise(self.model, condition, uncondition, cfg_scale, model_kwargs)
        times, x = uniform_times(steps), x.float()
        alpha, sigma, timesteps = times.alpha.tolist(), times.sigma.tolist(), times.timesteps.tolist()
        draws = draws or (lambda step: torch.randn_like(x))

        def x0_at(x: Tensor, i: int) -> Tensor:
            return (x - sigma[i] * noise(x, timesteps[i])) / alpha[i]

        x0_before, x0 = None, x0_at(x, 0)
        for i in tqdm(range(1, steps), disable=not progress, desc="sampling"):
            tau = float(NOISY[0] <= times.t[i] <= NOISY[1])
            start = decay(times, i, tau) * x
            if tau:
                start = start + sigma[i] * math.sqrt(-math.expm1(-2 * tau**2 * step_size(times, i))) * draws(i)
            c, c_before = predictor(times, i, tau)
            predicted = start + c * x0 + (c_before * x0_before if c_before else 0)
            x0_new = x0_at(predicted, i)
            c_new, c = corrector(times, i, tau)
            x, x0_before, x0 = start + c_new * x0_new + c * x0, x0, x0_new
            if callback:
                callback(i - 1, x)
        x = decay(times, steps, 0) * x + predictor(times, steps, 0, first_order=True)[0] * x0
        if callback:
            callback(steps - 1, x)
        return x


# ---- coefficients of a step to time i: kappa = 1 + tau^2, h = lambda_i - lambda_{i-1} -----------------------------------------------


def step_size(times: Times, i: int) -> float:
    return float(times.lam[i] - times.lam[i - 1])


def decay(times: Times, i: int, tau: float) -> float:
    """Of the state: exp(-tau^2 h) sigma_i / sigma_{i-1}."""
    return float(math.exp(-(tau**2) * step_size(times, i)) * times.sigma[i] / times.sigma[i - 1])


def predictor(times: Times, i: int, tau: float, first_order: bool = False) -> tuple[float, float]:
    """Of the data predicted at times i - 1 and i - 2; the latter is 0 at the first step, or with `first_order`."""
    h, kappa = step_size(times, i), 1 + tau**2
    scale = kappa * float(times.alpha[i])
    if i == 1 or first_order:
        return scale * _moments(h, kappa)[0], 0.0
    h_before = step_size(times, i - 1)
    few_steps = (h**2 / 2 - _remainder(h, kappa)) / h_before
    c, c_before = _adams(h, kappa, -h, -h - h_before)
    return scale * (c + few_steps), scale * (c_before - few_steps)


def corrector(times: Times, i: int, tau: float) -> tuple[float, float]:
    """Of the data predicted at times i and i - 1."""
    h, kappa = step_size(times, i), 1 + tau**2
    scale = kappa * float(times.alpha[i])
    few_steps = (h**2 / 2 - _remainder(h, kappa)) / h
    c_new, c = _adams(h, kappa, 0.0, -h)
    return scale * (c_new + few_steps), scale * (c - few_steps)


def _adams(h: float, kappa: float, a: float, b: float) -> tuple[float, float]:
    """Integrals over v = -h..0 of e^(kappa v) times the Lagrange basis on the nodes a, b."""
    constant, linear = _moments(h, kappa)
    return (linear - b * constant) / (a - b), (linear - a * constant) / (b - a)


def _moments(h: float, kappa: float) -> tuple[float, float]:
    """Integrals over v = -h..0 of e^(kappa v) and of v e^(kappa v)."""
    constant = -math.expm1(-kappa * h) / kappa
    return constant, (h * math.exp(-kappa * h) - constant) / kappa


def _remainder(h: float, kappa: float) -> float:
    return (kappa * h - 1 + math.exp(-kappa * h)) / kappa**2
