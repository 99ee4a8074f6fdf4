"""The sampling run: batches, guidance, callbacks."""

from __future__ import annotations

import pytest
import torch
from tiny import LATENT, one_thread, random_dit

from diffusion import create_diffusion
from dit.model import DiT
from dit.sampler import Sampler
from dit.spec import CONFIGS
from dit.weights import MINI
from toca.cli.flags import SOLVERS
from toca.loading.weights import load_state_dict
from toca.methods import DuCa, NoCaching, Scheduled, TaylorSeer, ToCa
from toca.runs.seeds import item_generators

__all__ = ["one_thread"]


def sampler(method=None, steps=6, **options) -> Sampler:
    return Sampler(random_dit(LATENT), create_diffusion(str(steps)), method or NoCaching(), **options)


def load_mini() -> DiT:
    model = DiT(CONFIGS["DiT-mini"]).eval()
    model.load_state_dict(load_state_dict(MINI))
    return model


@pytest.mark.parametrize("method", [NoCaching(), ToCa(score="random"), DuCa(), TaylorSeer(interval=3, order=1)], ids=lambda m: m.name)
@pytest.mark.parametrize("ddim", [True, False])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_a_batch_equals_its_singles(method, ddim, cfg_scale):
    s = sampler(method, ddim=ddim, cfg_scale=cfg_scale)
    labels = torch.tensor([0, 3, 3])
    together = s.sample(labels, item_generators(0, range(3)))
    alone = torch.cat([s.sample(labels[i : i + 1], item_generators(0, [i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * together.abs().max().item())
    assert (together[1] - together[2]).abs().max() > 1e-2


def test_guiding_all_channels_changes_the_fourth():
    def first_step(all_channels: bool) -> torch.Tensor:
        s = sampler(steps=1, guide_all_channels=all_channels, cfg_scale=4.0)
        return s.sample(torch.tensor([1]), item_generators(0, [0]))

    published, everything = first_step(False), first_step(True)
    assert torch.equal(published[:, :3], everything[:, :3]) and not torch.equal(published[:, 3], everything[:, 3])


@pytest.mark.parametrize("ddim", [True, False])
def test_a_callback_sees_every_step_and_may_end_the_run(ddim):
    s, seen = sampler(ToCa(), ddim=ddim), []
    labels = torch.tensor([0, 3])
    x = s.sample(labels, item_generators(0, range(2)), callback=lambda step, x: seen.append((step, x)))
    assert [step for step, _ in seen] == list(range(6)) and torch.equal(seen[-1][1], x)
    assert torch.equal(x, s.sample(labels, item_generators(0, range(2))))

    def stop(step: int, x: torch.Tensor) -> None:
        if step == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        s.sample(labels, item_generators(0, range(2)), callback=stop)


# ---- good solvers ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [NoCaching(), ToCa(score="random"), Scheduled((0, 1, 3), ("hidden",))], ids=lambda m: m.name)
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_a_solvers_batch_equals_its_singles(method, solver, cfg_scale):
    s = sampler(method, solver=(solver, "karras"), cfg_scale=cfg_scale)
    labels, seen = torch.tensor([0, 3, 3]), []
    together = s.sample(labels, item_generators(0, range(3)), callback=lambda step, x: seen.append(step))
    alone = torch.cat([s.sample(labels[i : i + 1], item_generators(0, [i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * together.abs().max().item())
    assert seen == list(range(6))


def test_a_good_solver_of_few_steps_is_nearer_to_the_truth_than_ddim():
    """On the embedded model, from the same noise; the truth is another solver's, on many steps of another grid."""
    model = load_mini()

    def picture(steps: int, **options) -> torch.Tensor:
        s = Sampler(model, create_diffusion(str(steps)), NoCaching(), cfg_scale=1.5, **options)
        return s.sample(torch.tensor([6]), item_generators(3, [0])).clamp(-1, 1)

    truth = picture(30, solver=("dpm++", "quadratic"))
    few, published = (
        (picture(13, **options) - truth).square().mean().sqrt().item() for options in (dict(solver=("unipc", "karras")), dict(ddim=True))
    )
    assert few < 0.04 and few < 0.5 * published
