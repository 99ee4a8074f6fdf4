"""Parts of a linear layer: fused layers are computed piecewise where only a piece is needed."""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

ALL = slice(None)


def linear_part(linear: nn.Linear, x: Tensor, rows: slice = ALL, columns: slice = ALL, bias: bool = True) -> Tensor:
    """Some outputs (rows of the weight) of some inputs (its columns): x (..., columns) -> (..., rows).

    Parts by columns add up to the whole if one of them has the bias. An adapter beside the linear (`lora_A`, `lora_B`, `scale`) counts.
    """
    y = F.linear(x, linear.weight[rows, columns], linear.bias[rows] if bias and linear.bias is not None else None)
    if hasattr(linear, "lora_A"):
        y = y + linear.scale * linear_part(linear.lora_B, linear_part(linear.lora_A, x, columns=columns), rows, bias=bias)
    return y
