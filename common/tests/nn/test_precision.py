"""Tables of positions and frequencies are as exact as in float64, on devices that have none."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from toca.nn.rotary import _turns, rope
from toca.nn.sinusoid import frequencies


class Made(TorchDispatchMode):
    """Notes what is made on a device that is not the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.dtypes: set[torch.dtype] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.dtypes |= {t.dtype for t in tree_leaves(out) if isinstance(t, torch.Tensor) and t.device.type != "cpu"}
        return out


def test_no_float64_reaches_the_device() -> None:
    frequencies.cache_clear()
    _turns.cache_clear()
    meta = torch.device("meta")
    with Made() as made:
        frequencies(16, 10_000, meta)
        rope(torch.zeros(2, 5, device=meta), 16, 10_000)
    assert made.dtypes == {torch.float32, torch.complex64}


def test_tables_are_made_once() -> None:
    assert frequencies(16, 10_000, torch.device("cpu")) is frequencies(16, 10_000, torch.device("cpu"))
    with torch.inference_mode():
        assert not frequencies(12, 10_000, torch.device("cpu")).is_inference()


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.bfloat16])
def test_rotations_are_those_of_float64_angles(dtype: torch.dtype) -> None:
    pos = torch.arange(4096).to(dtype)
    omega = 10_000 ** -(torch.arange(0, 56, 2, dtype=torch.float64) / 56)
    exact = torch.polar(torch.ones(4096, 28, dtype=torch.float64), pos.double()[:, None] * omega)
    assert (rope(pos, 56, 10_000).to(torch.complex128) - exact).abs().max() < 5e-7


def test_frequencies_are_rounded_correctly() -> None:
    exponents = -math.log(10_000) * torch.arange(128, dtype=torch.float32) / 128
    expected = torch.tensor([math.exp(exponent) for exponent in exponents.tolist()])
    assert torch.equal(frequencies(128, 10_000, torch.device("cpu")), expected)
