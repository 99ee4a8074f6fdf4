"""The sampler: recorded network outputs lead to the recorded latents, and times and masks follow their formulas."""

from __future__ import annotations

import itertools
import re

import pytest
import torch
from golden_folder import CASES, MODULES, WITH_MODULES, tensors
from torch import Tensor

from opensora.schedulers import RFLOW
from opensora.schedulers.rf.rectified_flow import frame_tables, timestep_transform

WHOLE = [name for name, case in CASES.items() if case.get("kept_model_outputs", "").startswith("all steps")]


def scheduler(case: dict) -> RFLOW:
    flags = {key: case[key] for key in ("use_timestep_transform", "use_discrete_timesteps", "cfg_scale")}
    return RFLOW(num_sampling_steps=case["steps"], **flags)


class Recorded:
    """A network that answers call i with the recorded output i, and keeps what it was called with."""

    def __init__(self, outputs: Tensor) -> None:
        self.outputs, self.times, self.masks = outputs, [], []

    def __call__(self, x: Tensor, t: Tensor, y: Tensor, x_mask: Tensor | None, cache: object) -> Tensor:
        assert len(x) == len(t) == len(y)
        self.times.append(t)
        self.masks.append(torch.ones(len(x), x.shape[2], dtype=torch.bool) if x_mask is None else x_mask)
        return self.outputs[len(self.times) - 1]


@pytest.mark.parametrize("name", WHOLE)
def test_recorded_outputs_lead_to_the_recorded_latents(name: str) -> None:
    case, data = CASES[name], tensors(f"{name}.safetensors")
    network = Recorded(data["model_out"] if "model_out" in data else data["model_out_vel"])
    height, width = case["height_width_px"]
    z = scheduler(case).sample(
        network,
        data["z_init"],
        data["y"],
        torch.zeros_like(data["y"]),
        num_frames=case["num_frames"],
        height=height,
        width=width,
        mask=data.get("cond_mask"),
        noise=lambda step, item: data["step_noise"][step, item],
    )
    torch.testing.assert_close(z, data["z_final"], atol=1e-4, rtol=0)
    found = torch.stack(network.times)[:, : case["batch"]]
    torch.testing.assert_close(found, data["timesteps"], atol=1e-3, rtol=0)
    if "x_mask" in data:
        assert torch.equal(torch.stack(network.masks), data["x_mask"].bool())


@WITH_MODULES
def test_times_of_published_sizes() -> None:
    checked = 0
    for key, expected in MODULES.items():
        if match := re.fullmatch(r"timesteps\.h(\d+)_w(\d+)_f(\d+)_n(\d+)", key):
            height, width, frames, steps = map(int, match.groups())
            times = RFLOW(num_sampling_steps=steps, use_timestep_transform=True).timesteps(frames, height, width)
            torch.testing.assert_close(torch.tensor(times), expected, atol=1e-3, rtol=0)
            checked += 1
    assert checked >= 6


@pytest.mark.parametrize("frames", [1, 2, 5, 16, 17, 51, 816])
def test_times_are_finite_and_fall_from_the_last_one(frames: int) -> None:
    for height, width in itertools.product((48, 144, 480, 1440), (64, 256, 2560)):
        times = RFLOW(num_sampling_steps=30, use_timestep_transform=True).timesteps(frames, height, width)
        assert times[0] == pytest.approx(1000, abs=1e-9) and times[0] <= 1000
        assert all(now > then > 0 for now, then in itertools.pairwise(times))


def test_a_constant_velocity_is_integrated_exactly() -> None:
    """x_0 - noise does not change along the path, so that any number of steps arrives at x_0."""
    clean, noise = torch.randn(2, 2, 4, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    for steps in (1, 7):
        z = RFLOW(steps, use_timestep_transform=True).sample(
            lambda x, t, y, x_mask, cache: (clean - noise).repeat(2, 1, 1, 1, 1),
            noise, torch.zeros(2, 1), torch.zeros(2, 1), num_frames=9, height=64, width=96,
        )  # fmt: skip
        torch.testing.assert_close(z, clean, atol=1e-5, rtol=0)


def test_guidance_weighs_text_against_none() -> None:
    z = RFLOW(1, cfg_scale=3.0).sample(
        lambda x, t, y, x_mask, cache: y[:, :, None, None, None].expand_as(x),
        torch.zeros(1, 4, 1, 2, 2), torch.full((1, 1), 2.0), torch.full((1, 1), 1.0), num_frames=1, height=16, width=16,
    )  # fmt: skip
    assert torch.equal(z, torch.full_like(z, 1 + 3 * (2 - 1)))


def test_given_frames_are_kept_and_edited_ones_enter_at_their_level() -> None:
    times = [1000.0, 750.0, 500.0, 250.0]
    active, entering = frame_tables(torch.tensor([[1.0, 0.0, 0.5]]), times, 1000)
    assert active[:, 0].tolist() == [[True, False, False], [True, False, False], [True, False, True], [True, False, True]]
    assert entering[:, 0].tolist() == [[False] * 3, [False] * 3, [False, False, True], [False] * 3]
    z = torch.randn(1, 4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    seen = []

    def model(x: Tensor, t: Tensor, y: Tensor, x_mask: Tensor | None, cache: object) -> Tensor:
        seen.append(x[0])
        return torch.ones_like(x)

    settings = dict(num_frames=9, height=16, width=16, mask=torch.tensor([[1.0, 0.0, 0.5]]))
    noise = torch.full((4, 3, 2, 2), 7.0)
    out = RFLOW(4).sample(model, z, torch.zeros(1, 1), torch.zeros(1, 1), noise=lambda step, item: noise, **settings)
    assert torch.equal(out[:, :, 1], z[:, :, 1])
    torch.testing.assert_close(seen[2][:, 2], 0.5 * z[0, :, 2] + 0.5 * 7.0)
    torch.testing.assert_close(out[:, :, 2], 0.5 * z[:, :, 2] + 0.5 * 7.0 + 0.5)
    with pytest.raises(ValueError, match="give the noise"):
        RFLOW(4).sample(model, z, torch.zeros(1, 1), torch.zeros(1, 1), **settings)


def test_a_mask_of_ones_is_no_mask() -> None:
    seen = []

    def model(x: Tensor, t: Tensor, y: Tensor, x_mask: Tensor | None, cache: object) -> Tensor:
        seen.append(x_mask)
        return x

    z = torch.ones(2, 4, 3, 2, 2)
    RFLOW(3).sample(model, z, z[:, :1], z[:, :1], num_frames=9, height=16, width=16, mask=torch.ones(2, 3))
    assert seen == [None] * 3


def test_the_transform_never_passes_the_last_time() -> None:
    assert timestep_transform(1000, 17, 48, 64) == 1000


@pytest.mark.parametrize("steps", [0, -1, 2.5, "30"])
def test_a_number_of_steps_that_makes_no_sense(steps: object) -> None:
    with pytest.raises(ValueError, match="num_sampling_steps"):
        RFLOW(num_sampling_steps=steps)
