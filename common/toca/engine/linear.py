"""Parts of a linear layer: fused layers are computed piecewise where only a piece is needed."""

from __future__ import annotations

from typing import Any

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ALL = slice(None)


def linear_part(linear: nn.Linear, x: Tensor, outputs: slice = ALL, inputs: slice = ALL, bias: bool = True) -> Tensor:
    """Some outputs of some inputs: x (..., inputs) -> (..., outputs).

    Parts by inputs add up to the whole if one of them has the bias. An adapter beside the linear (`lora_A`, `lora_B`, `scale`) counts.
    """
    y = F.linear(x, linear.weight[outputs, inputs], linear.bias[outputs] if bias and linear.bias is not None else None)
    if hasattr(linear, "lora_A"):
        adapter: Any = linear
        y = y + adapter.scale * linear_part(adapter.lora_B, linear_part(adapter.lora_A, x, inputs=inputs), outputs, bias=bias)
    return y
