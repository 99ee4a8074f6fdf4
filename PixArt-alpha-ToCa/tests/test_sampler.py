"""From embedded texts to latents."""

from __future__ import annotations

import pytest
import torch
from small import SMALL, inputs, small_pixart

from pixart.aspect_ratios import Request
from pixart.sampler import Sampler
from toca.methods import ToCa
from toca.runs.seeds import item_generators

SIZE = Request("", 64, 64, 1.0)


def latents(algorithm: str, cfg_scale: float = 4.5, **options) -> torch.Tensor:
    data = inputs(2, SMALL)
    sampler = Sampler(small_pixart(SMALL), ToCa(3, 0.3), algorithm, 4, cfg_scale, **options)
    return sampler.sample(data.text, data.mask, SIZE, item_generators(0, [0, 1]))


@pytest.mark.parametrize("cfg_scale", (4.5, 1.0))
@pytest.mark.parametrize("algorithm", ("dpm-solver", "sa-solver", "iddpm"))
def test_a_callback_sees_the_latents_of_every_step(algorithm: str, cfg_scale: float) -> None:
    seen: list[tuple[int, torch.Tensor]] = []
    out = latents(algorithm, cfg_scale, callback=lambda step, x: seen.append((step, x)))
    assert out.shape == (2, 4, 8, 8) and torch.equal(latents(algorithm, cfg_scale), out)
    assert [step for step, _ in seen] == [0, 1, 2, 3] and all(x.shape == out.shape for _, x in seen)
    assert torch.equal(seen[-1][1], out)
