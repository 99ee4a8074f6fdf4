"""The samplers: exact solutions, diffusers' scheduler, and what they ask of a network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler
from torch import Tensor

from pixart.solvers import DPMS, SASolverSampler, sa_solver
from pixart.solvers.schedule import Times, uniform_times

MEAN, STD = 0.5, 0.3  # of Gaussian data
X = torch.linspace(-2, 2, 64).reshape(1, 4, 4, 4)
TEXT = torch.zeros(1, 1, 1, 1)


def times_at(timesteps: Tensor) -> Times:
    return Times((timesteps.double() / 1000 + 0.001).numpy())


def gaussian(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
    """The exact noise prediction for data N(MEAN, STD^2)."""
    times = times_at(t[:1])
    alpha, sigma = float(times.alpha[0]), float(times.sigma[0])
    return sigma * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2)


def exact(x: Tensor) -> Tensor:
    """Where the probability flow takes noise: quantiles stay quantiles."""
    times = Times(np.array([1.0, 0.001]))
    std = np.sqrt(times.alpha**2 * STD**2 + times.sigma**2)
    return MEAN * times.alpha[1] + (x - MEAN * times.alpha[0]) * std[1] / std[0]


def dpm(steps: int, x: Tensor = X, **options) -> Tensor:
    return DPMS(gaussian, TEXT, TEXT, 1).sample(x, steps, **options)


def sa(steps: int, x: Tensor = X, model=gaussian, draws=None, **options) -> Tensor:
    return SASolverSampler(model).sample(x, TEXT, TEXT, 1, steps, draws=draws, **options)


# ---- exact solutions -----------------------------------------------------------------------------------------------------------------


def test_dpm_solver_converges_with_second_order_on_gaussian_data() -> None:
    errors = [(dpm(steps) - exact(X)).abs().max().item() for steps in (80, 160, 320)]
    assert errors[0] < 0.05 and errors[1] < errors[0] / 3.5 and errors[2] < errors[1] / 3.5


def test_sa_solver_without_noise_converges_with_second_order_on_gaussian_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sa_solver, "NOISY", (2.0, 2.0))
    errors = [(sa(steps) - exact(X)).abs().max().item() for steps in (20, 40, 80)]
    assert errors[0] < 0.2 and errors[1] < errors[0] / 3 and errors[2] < errors[1] / 3


def test_sa_solver_keeps_the_variance_of_the_noise() -> None:
    """With data that is one point, every state is alpha times that point and noise of standard deviation sigma, to rounding."""

    def point(x: Tensor, t: Tensor, y: Tensor) -> Tensor:
        times = times_at(t[:1])
        return (x - float(times.alpha[0]) * MEAN) / float(times.sigma[0])

    last, asked = uniform_times(12), []

    def draws(step: int) -> Tensor:  # each in a place of its own, so that the result shows its weight
        asked.append(step)
        return torch.zeros(1, 1, 1, 13).index_fill_(3, torch.tensor(step), 1.0)

    out = sa(12, torch.zeros(1, 1, 1, 13).index_fill_(3, torch.tensor(0), 1.0), point, draws)
    noise = (out.double() - last.alpha[-1] * MEAN) / last.sigma[-1]
    assert asked == [i for i in range(1, 12) if 0.2 <= uniform_times(12).t[i] <= 0.8] and len(asked) > 4
    assert noise.square().sum().item() == pytest.approx(1, abs=2e-3)
    assert (noise.flatten()[asked] > 1e-3).all()


def test_sa_solver_draws_for_itself_from_torch_s_generator() -> None:
    first = sa(6, draws=None)
    torch.manual_seed(3)
    second = sa(6)
    torch.manual_seed(3)
    assert torch.equal(sa(6), second) and not torch.equal(first, second)


# ---- diffusers -----------------------------------------------------------------------------------------------------------------------


def diffusers_dpm(steps: int, fractional: bool) -> Tensor:
    """diffusers' scheduler by the spec's recipe; fractional: at the published times instead of rounded ones."""
    scheduler = DPMSolverMultistepScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule="linear",
        algorithm_type="dpmsolver++",
        solver_order=2,
        solver_type="midpoint",
        timestep_spacing="linspace",
        final_sigmas_type="sigma_min",
        lower_order_final=steps < 10,
    )
    scheduler.set_timesteps(steps)
    if fractional:
        times = uniform_times(steps)
        scheduler.timesteps = torch.from_numpy(times.timesteps[:-1].copy())
        scheduler.sigmas = torch.from_numpy(times.sigma / times.alpha)
    x = X
    for t in scheduler.timesteps:
        x = scheduler.step(gaussian(x, t[None], TEXT), t, x).prev_sample
    return x


@pytest.mark.parametrize("steps", (6, 9, 12, 20, 27))
def test_dpm_solver_is_diffusers_scheduler_at_the_published_times(steps: int) -> None:
    torch.testing.assert_close(dpm(steps), diffusers_dpm(steps, fractional=True), atol=5e-6, rtol=0)


@pytest.mark.parametrize(("steps", "apart"), ((20, 3e-4), (27, 1e-5)))  # 27 divides 999: diffusers has nothing to round
def test_dpm_solver_is_diffusers_scheduler_but_for_its_rounded_times(steps: int, apart: float) -> None:
    torch.testing.assert_close(dpm(steps), diffusers_dpm(steps, fractional=False), atol=apart, rtol=0)


# ---- what they ask of a network --------------------------------------------------------------------------------------------------------


class Recorder:
    """A network that notes its inputs; its noise is 0.1 for text 1 and 0.3 for text 0."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.calls, self.dtype = [], dtype

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, **kwargs: object) -> Tensor:
        self.calls.append((x, t, y, kwargs))
        return (0.3 - 0.2 * y).expand_as(x).to(self.dtype)


def run(name: str, network: Recorder, x: Tensor, cfg_scale: float, steps: int = 6, **model_kwargs: object) -> Tensor:
    cond, uncond = torch.ones(len(x), 1, 1, 1), torch.zeros(len(x), 1, 1, 1)
    if name == "dpm":
        return DPMS(network, cond, uncond, cfg_scale, model_kwargs).sample(x, steps)
    return SASolverSampler(network).sample(x, cond, uncond, cfg_scale, steps, model_kwargs, draws=lambda i: torch.zeros_like(x))


@pytest.mark.parametrize("name", ("dpm", "sa"))
def test_guided_rows_are_unconditional_first_and_a_step_is_one_call(name: str) -> None:
    network, cache = Recorder(), object()
    run(name, network, X.repeat(3, 1, 1, 1), 4.5, cache=cache)
    assert len(network.calls) == 6
    for (x, t, y, kwargs), expected in zip(network.calls, uniform_times(6).timesteps):
        assert y.flatten().tolist() == [0, 0, 0, 1, 1, 1] and torch.equal(x[:3], x[3:])
        assert t.dtype == torch.float32 and t.tolist() == pytest.approx([expected] * 6)
        assert kwargs == dict(cache=cache)


@pytest.mark.parametrize("name", ("dpm", "sa"))
def test_without_guidance_the_network_sees_the_condition_alone(name: str) -> None:
    network = Recorder()
    run(name, network, X, 1)
    assert all(y.flatten().tolist() == [1] and len(x) == 1 for x, _, y, _ in network.calls)


def test_guidance_moves_all_channels_away_from_the_unconditional_noise() -> None:
    """One step from x: x0 = (x - sigma e) / alpha with e = e_u + g (e_c - e_u) = 0.3 - 4.5 * 0.2."""
    times = uniform_times(1)
    eps, ratio = 0.3 - 4.5 * 0.2, times.sigma[1] / times.sigma[0]
    x0 = (X.double() - times.sigma[0] * eps) / times.alpha[0]
    expected = ratio * X.double() - times.alpha[1] * math.expm1(times.lam[0] - times.lam[1]) * x0
    for name in ("dpm", "sa"):
        torch.testing.assert_close(run(name, Recorder(), X, 4.5, steps=1).double(), expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ("dpm", "sa"))
def test_a_half_precision_network_leaves_the_state_and_the_guidance_in_float32(name: str) -> None:
    network = Recorder(torch.float16)
    out = run(name, network, X, 4.5)
    assert out.dtype == torch.float32 and network.calls[-1][0].dtype == torch.float32
    rounded = torch.tensor(0.1).half().float().item(), torch.tensor(0.3).half().float().item()

    class Rounded(Recorder):
        def __call__(self, x: Tensor, t: Tensor, y: Tensor) -> Tensor:
            return (y * rounded[0] + (1 - y) * rounded[1]).expand_as(x)

    assert torch.equal(out, run(name, Rounded(), X, 4.5))


@pytest.mark.parametrize("name", ("dpm", "sa"))
def test_no_image_depends_on_its_batch(name: str) -> None:
    batch = torch.randn(3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    together = run(name, Recorder(), batch, 4.5)
    for i in range(3):
        assert torch.equal(run(name, Recorder(), batch[i : i + 1], 4.5), together[i : i + 1])


def test_a_run_has_at_least_one_step() -> None:
    with pytest.raises(ValueError, match="at least 1 step, got 0"):
        dpm(0)


@pytest.mark.parametrize("solve", (dpm, sa))
def test_a_callback_sees_every_step_and_may_end_the_run(solve) -> None:
    seen: list[tuple[int, Tensor]] = []
    out = solve(5, callback=lambda step, x: seen.append((step, x)))
    assert [step for step, _ in seen] == [0, 1, 2, 3, 4] and torch.equal(seen[-1][1], out)

    def enough(step: int, x: Tensor) -> None:
        if step == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        solve(5, callback=enough)
