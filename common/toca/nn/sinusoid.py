"""Sinusoidal embeddings of times and positions."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def frequencies(half: int, max_period: float, device: torch.device) -> Tensor:
    """max_period^(-k / half), k < half, in float32; made once on the CPU, since not every device has float64.

    Times reach the hundreds: one unit in the last place of a frequency shows in the output. So the exponents are rounded to float32, as
    published code has them, and the exponential correctly, which float32's is on no two machines alike.
    """
    exponents = -math.log(max_period) * torch.arange(half, dtype=torch.float32, device="cpu") / half
    return exponents.double().exp().float().to(device)
