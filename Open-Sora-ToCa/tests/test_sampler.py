"""The one cached run of a clip: what reaches the model, and when."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small import LATENT, SMALL, inputs, small_stdit3
from torch import Tensor

from opensora.datasets.aspect import Size
from opensora.sampler import sample_latents
from opensora.schedulers import RFLOW
from opensora.spec import opensora_spec
from toca.methods import Method, NoCaching, ToCa
from toca.planning.run import PlannedRun

MODEL, STEPS = small_stdit3(), 6
SIZE = Size(9, 40, 64)


def sample(method: Method, **options: object) -> Tensor:
    data = inputs(1)
    run = PlannedRun("small", opensora_spec(SMALL, LATENT, int(data["mask"].sum())), method, STEPS, rows_per_image=2)
    return sample_latents(MODEL, RFLOW(STEPS), run, data["z"], data["y"], data["mask"], size=SIZE, fps=24, **options)


def test_a_method_changes_little_and_something() -> None:
    plain, cached = sample(NoCaching()), sample(ToCa(3, 0.3, ratio_schedule="constant"))
    assert plain.shape == (1, 4, *LATENT) and 1e-4 < (plain - cached).std() < 0.5 * plain.std()


def test_a_callback_sees_the_latents_of_every_step() -> None:
    seen: list[tuple[int, Tensor]] = []
    out = sample(ToCa(3, 0.1), callback=lambda step, z: seen.append((step, z)))
    assert [step for step, _ in seen] == list(range(STEPS))
    assert torch.equal(seen[-1][1], out) and not torch.equal(seen[0][1], out)


def test_what_a_callback_raises_ends_the_run() -> None:
    steps = []

    def stop(step: int, z: Tensor) -> None:
        steps.append(step)
        if step == 2:
            raise StopIteration

    with pytest.raises(StopIteration):
        sample(ToCa(3, 0.1), callback=stop)
    assert steps == [0, 1, 2]


def test_the_size_in_pixels_is_told() -> None:
    data, told = inputs(1), sample(NoCaching())
    other = dataclasses.replace(SIZE, height=400)
    run = PlannedRun("small", opensora_spec(SMALL, LATENT, int(data["mask"].sum())), NoCaching(), STEPS, rows_per_image=2)
    assert not torch.equal(told, sample_latents(MODEL, RFLOW(STEPS), run, data["z"], data["y"], data["mask"], size=other, fps=24))
