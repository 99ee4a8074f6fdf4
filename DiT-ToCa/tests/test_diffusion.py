"""The samplers and the loss, on models whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from diffusion import create_diffusion
from diffusion.gaussian_diffusion import discretised_gaussian_log_likelihood, normal_kl, squaredcos_betas
from diffusion.respace import space_timesteps
from dit.training.timestep_sampler import create_named_schedule_sampler

SHAPE = torch.Size((2, 3, 4, 4))
TARGET = torch.linspace(-0.9, 0.9, 48).view(1, 3, 4, 4).expand(SHAPE)


def oracle(steps: int, v: float = 0.0):
    """A network that knows the picture: it names exactly the noise that was added to TARGET."""
    abar = torch.from_numpy(create_diffusion().alphas_cumprod)

    def model(x: Tensor, t: Tensor) -> Tensor:
        a = abar[t].float().view(-1, 1, 1, 1)
        return torch.cat([(x - a.sqrt() * TARGET) / (1 - a).sqrt(), torch.full_like(x, v)], dim=1)

    return create_diffusion(str(steps)), model


@pytest.mark.parametrize("steps", [1, 2, 7, 50])
def test_every_sampler_finds_the_picture_an_oracle_knows(steps: int) -> None:
    diffusion, model = oracle(steps)
    z = torch.randn(SHAPE)
    for found in (
        diffusion.ddim_sample_loop(model, SHAPE, z),
        diffusion.ddim_sample_loop(model, SHAPE, z, eta=0.7),
        diffusion.p_sample_loop(model, SHAPE, z),
    ):
        torch.testing.assert_close(found, TARGET, atol=2e-3, rtol=0)


def test_steps_count_down_and_report_what_they_saw() -> None:
    diffusion, model = oracle(5)
    seen: list[int] = []

    def watched(x: Tensor, t: Tensor, extra: int) -> Tensor:
        assert extra == 3 and len(set(t.tolist())) == 1
        seen.append(int(t[0]))
        return model(x, t)

    steps = list(diffusion.ddim_sample_loop_progressive(watched, SHAPE, torch.randn(SHAPE), model_kwargs=dict(extra=3)))
    assert [step["i"] for step in steps] == [4, 3, 2, 1, 0] and seen == [999, 749, 500, 250, 0]
    assert all(torch.allclose(step["pred_xstart"], TARGET, atol=1e-2) for step in steps) and steps[0]["model_out"].shape == (2, 6, 4, 4)


@pytest.mark.parametrize("options, drawn", [({}, []), (dict(eta=0.5), [3, 2, 1]), (dict(upstream_noise=True), [3, 2, 1, 0])])
def test_ddim_draws_noise_only_where_it_is_used(options: dict, drawn: list[int]) -> None:
    diffusion, model = oracle(4)
    asked: list[int] = []

    def noise(i: int, shape: torch.Size) -> Tensor:
        asked.append(i)
        return torch.zeros(shape)

    diffusion.ddim_sample_loop(model, SHAPE, torch.randn(SHAPE), noise_fn=noise, **options)
    assert asked == drawn


def test_ddpm_spreads_by_the_learned_variance() -> None:
    """One step from the same latent, noise of one: the sample moves by exp(log variance / 2), between the posterior's and beta's."""
    deviations = []
    for v in (-1.0, 0.0, 1.0):
        diffusion, model = oracle(10, v)
        z = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        still, moved = (
            next(diffusion.p_sample_loop_progressive(model, SHAPE, z, noise_fn=lambda i, shape, n=n: torch.full(shape, n)))["sample"]
            for n in (0.0, 1.0)
        )
        deviations.append((moved - still).mean().item())
    low, high = diffusion.posterior_variance[-1] ** 0.5, diffusion.betas[-1] ** 0.5
    assert deviations == pytest.approx([low, (low * high) ** 0.5, high], rel=1e-4)


def test_clipping_is_an_option() -> None:
    diffusion, model = oracle(3)
    wild = lambda x, t: model(x, t) * 5  # noqa: E731
    step = next(iter(diffusion.ddim_sample_loop_progressive(wild, SHAPE, torch.randn(SHAPE), clip_denoised=True)))
    assert step["pred_xstart"].abs().max() == 1


def test_without_noise_the_latent_is_drawn() -> None:
    diffusion, model = oracle(2)
    torch.manual_seed(0)
    first = diffusion.ddim_sample_loop(model, SHAPE)
    torch.manual_seed(0)
    assert torch.equal(first, diffusion.ddim_sample_loop(model, SHAPE, torch.randn(SHAPE)))


# ---- timesteps ------------------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 1000))
def test_a_plain_count_runs_from_the_first_to_the_last_timestep(count: int) -> None:
    kept = space_timesteps(1000, str(count))
    assert len(kept) == count and kept[0] == 0 and kept[-1] == 999 and kept == sorted(set(kept))
    gaps = np.diff(kept)
    assert gaps.max() - gaps.min() <= 1


def test_other_ways_to_choose_timesteps() -> None:
    assert space_timesteps(1000, "") == list(range(1000)) and space_timesteps(1000, "1") == [999]
    assert space_timesteps(1000, "ddim25") == list(range(0, 1000, 40))
    assert space_timesteps(10, [2, 3]) == [0, 4, 5, 7, 9] == space_timesteps(10, "2,3")


@pytest.mark.parametrize("counts, message", [("0", "cannot take 0 steps"), ("1001", "cannot take 1001"), ("ddim999", "no integer stride")])
def test_counts_that_do_not_fit_are_errors(counts: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_diffusion(counts)


def test_noise_schedules_by_name() -> None:
    with pytest.raises(ValueError, match="unknown noise schedule 'cubic': choose from linear, squaredcos_cap_v2"):
        create_diffusion("10", noise_schedule="cubic")
    assert create_diffusion(noise_schedule="squaredcos_cap_v2").betas[-1] == pytest.approx(0.999)
    assert squaredcos_betas(1000).max() <= 0.999 and (np.diff(squaredcos_betas(1000)) >= 0).all()
    half = create_diffusion(diffusion_steps=500)
    assert (half.betas[0], half.betas[-1]) == pytest.approx((2e-4, 0.04))


@pytest.mark.parametrize(
    "name, options, mean, spread",
    [
        ("uniform", {}, 24.5, 14.4),
        ("logit-normal", {}, 24.5, 10.4),
        ("logit-normal", dict(mean=-1.0, std=0.5), 13.4, 4.8),
    ],
)
def test_timestep_samplers_stay_in_range(name: str, options: dict, mean: float, spread: float) -> None:
    torch.manual_seed(0)
    t, weights = create_named_schedule_sampler(name, create_diffusion("50"), **options).sample(20_000, torch.device("cpu"))
    assert t.min() >= 0 and t.max() <= 49 and (weights == 1).all()
    assert t.float().mean() == pytest.approx(mean, abs=0.5) and t.float().std() == pytest.approx(spread, abs=0.5)


def test_an_unknown_timestep_sampler_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown timestep sampler"):
        create_named_schedule_sampler("loss-second-moment", create_diffusion("50"))


# ---- loss -----------------------------------------------------------------------------------------------------------------------------


def test_a_perfect_prediction_has_no_loss_but_the_variance_terms() -> None:
    diffusion, model = oracle(1000, v=-1.0)  # the posterior's own variance
    losses = diffusion.training_losses(model, TARGET, torch.tensor([999, 400]), noise=torch.randn(SHAPE))
    assert losses["mse"].max() < 1e-6 and losses["vb"].abs().max() < 1e-4
    torch.testing.assert_close(losses["loss"], losses["mse"] + losses["vb"])


def test_the_variational_term_trains_the_variance_only() -> None:
    diffusion, out = create_diffusion(), torch.randn(2, 6, 4, 4, requires_grad=True)
    losses = diffusion.training_losses(lambda x, t: out, TARGET, torch.tensor([0, 500]), noise=torch.randn(SHAPE))
    (vb,) = torch.autograd.grad(losses["vb"].sum(), out, retain_graph=True)
    (mse,) = torch.autograd.grad(losses["mse"].sum(), out)
    assert not vb[:, :3].any() and vb[:, 3:].abs().amin(dim=(1, 2, 3)).min() > 0
    assert mse[:, :3].any() and not mse[:, 3:].any()


def test_kl_of_normals() -> None:
    same = torch.tensor(0.3), torch.tensor(-1.2)
    assert normal_kl(*same, *same) == 0
    expected = math.log(1 / 0.5) + (0.5**2 + 0.7**2) / 2 - 0.5  # of N(0, 0.5^2) from N(0.7, 1)
    found = normal_kl(torch.tensor(0.0), torch.tensor(2 * math.log(0.5)), torch.tensor(0.7), torch.tensor(0.0))
    assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("mean, deviation", [(0.0, 0.2), (0.8, 0.05), (-0.99, 0.5)])
def test_the_bins_of_the_likelihood_cover_everything(mean: float, deviation: float) -> None:
    bins = torch.linspace(-1, 1, 256, dtype=torch.float64)
    mass = discretised_gaussian_log_likelihood(bins, torch.tensor(mean), torch.tensor(math.log(deviation))).exp()
    assert mass.sum().item() == pytest.approx(1, abs=1e-6)
