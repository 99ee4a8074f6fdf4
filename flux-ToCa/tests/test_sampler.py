from __future__ import annotations

import json

import pytest
import torch
from golden_data import GOLDEN
from safetensors.torch import load_file

from flux.sampler import get_noise, get_schedule, grid, image_ids, pack, pack_mask, prepare, shift_of, unpack

CPU = torch.device("cpu")
SCHEDULES = json.loads((GOLDEN / "sampling_utils.json").read_text())["schedules"]
TENSORS = load_file(GOLDEN / "sampling_utils.safetensors")
NOISE = sorted(name for name in TENSORS if name.startswith("noise.") and not name.endswith(".packed"))
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: f"{case['num_steps']}-{case['image_seq_len']}-{case['shift']}")
def test_golden_schedules(case):
    assert get_schedule(case["num_steps"], case["image_seq_len"], shift=case["shift"]) == case["timesteps"]
    if case["mu"] is not None:
        assert shift_of(case["image_seq_len"]) == pytest.approx(case["mu"], abs=1e-12)


def test_the_shift_is_not_clipped():
    assert shift_of(100) == pytest.approx(0.4736, abs=1e-4) and shift_of(4080) == pytest.approx(1.1473, abs=1e-4)


@pytest.mark.parametrize("name", NOISE)
def test_golden_noise(name):
    n, height, width, seed, dtype = name.removeprefix("noise.").split("_")
    noise = get_noise(int(n[1:]), int(height[1:]), int(width[1:]), CPU, DTYPES[dtype], int(seed[4:]))
    assert noise.dtype is DTYPES[dtype] and torch.equal(noise.float(), TENSORS[name])
    packed = TENSORS[f"{name}.packed"]
    assert torch.equal(pack(noise).float(), packed)
    assert torch.equal(unpack(packed, int(height[1:]), int(width[1:])), noise.float())


def test_golden_mask():
    assert torch.equal(pack_mask(TENSORS["fill.mask"]), TENSORS["fill.mask_packed"])


def test_ids_are_rows_and_columns():
    ids = image_ids(2, *grid(40, 60), CPU)
    assert ids.shape == (2, 3 * 4, 3) and ids[1, 6].tolist() == [0, 1, 2]


@pytest.mark.parametrize("prompts", ["one", ["one"], ["a", "b", "c"]])
def test_prepare(prompts):
    def t5(texts):
        return torch.arange(len(texts))[:, None, None].expand(-1, 5, 7)

    def clip(texts):
        return torch.arange(len(texts))[:, None].expand(-1, 4)

    inputs = prepare(t5, clip, torch.zeros(3, 16, 6, 8), prompts)
    shapes = {name: tuple(value.shape) for name, value in inputs.items()}
    assert shapes == dict(img=(3, 12, 64), img_ids=(3, 12, 3), txt=(3, 5, 7), txt_ids=(3, 5, 3), vec=(3, 4))
    expected = [0, 1, 2] if len(prompts) == 3 and isinstance(prompts, list) else [0, 0, 0]
    assert inputs["txt"][:, 0, 0].tolist() == inputs["vec"][:, 0].tolist() == expected
    assert not inputs["txt_ids"].any()


def test_prompts_that_do_not_match_the_pictures_are_refused():
    with pytest.raises(ValueError, match="2 prompts for 3 pictures"):
        prepare(len, len, torch.zeros(3, 16, 2, 2), ["a", "b"])
