"""The sampling run: batches, guidance, callbacks."""

from __future__ import annotations

import pytest
import torch
from tiny import LATENT, one_thread, random_dit

from diffusion import create_diffusion
from dit.sampler import Sampler
from toca.methods import DuCa, NoCaching, TaylorSeer, ToCa
from toca.runs.seeds import item_generators

__all__ = ["one_thread"]


def sampler(method=None, steps=6, **options) -> Sampler:
    return Sampler(random_dit(LATENT), create_diffusion(str(steps)), method or NoCaching(), **options)


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
