"""LoRA adapters of the control models: W x + b + scale (B (A x) + b_B) in every linear, kept beside it or merged into it.

An adapter file holds `<linear>.lora_A.weight`, `<linear>.lora_B.weight` and `<linear>.lora_B.bias`, and may replace plain tensors.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from flux.spec import LORA_RANK

PARTS = (".lora_A.weight", ".lora_B.weight", ".lora_B.bias")


class LinearLora(nn.Linear):
    """A linear with an adapter beside it. Reads the same checkpoint keys as the plain linear, and the adapter's."""

    def __init__(self, in_features: int, out_features: int, bias: bool, rank: int, scale: float, device: torch.device | str) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device)
        self.scale = scale
        self.lora_A = nn.Linear(in_features, rank, bias=False, device=device)
        self.lora_B = nn.Linear(rank, out_features, bias=bias, device=device)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.scale * self.lora_B(self.lora_A(x))


def replace_linear_with_lora(module: nn.Module, max_rank: int = LORA_RANK, scale: float = 1.0) -> None:
    """Put an adapter beside every linear inside `module`, of rank min(max_rank, inputs, outputs). For models on the meta device."""
    for name, child in list(module.named_children()):
        if isinstance(child, LinearLora):
            continue
        if isinstance(child, nn.Linear):
            rank = min(max_rank, child.in_features, child.out_features)
            has_bias = child.bias is not None
            setattr(module, name, LinearLora(child.in_features, child.out_features, has_bias, rank, scale, child.weight.device))
        else:
            replace_linear_with_lora(child, max_rank, scale)


def set_lora_scale(module: nn.Module, scale: float) -> None:
    """The weight of the kept adapters: 0 is the base model."""
    for child in module.modules():
        if isinstance(child, LinearLora):
            child.scale = scale


def adapter_rank(adapter: Mapping[str, Tensor]) -> int:
    """The largest rank in an adapter file. Raises ValueError if it holds no adapter."""
    ranks = [value.shape[0] for key, value in adapter.items() if key.endswith(PARTS[0])]
    if not ranks:
        raise ValueError("no LoRA in it: no key ends in .lora_A.weight")
    return max(ranks)


def with_adapter(state: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model with kept adapters: the base model's, padded where the adapter wants more inputs, and the adapter's."""
    return widened(state, adapter) | dict(adapter)


def merge(merged: dict[str, Tensor], adapter: Mapping[str, Tensor], scale: float) -> None:
    """Turn a base model's tensors into those of a plain model that computes what it does with an adapter.

    Works in place, one layer at a time, so that a large model is never held twice. Sums are made in float32 and rounded to the base
    tensors' dtype once. Raises ValueError if the adapter is for another model.
    """
    merged.update(widened(merged, adapter))
    for key, value in adapter.items():
        linear = key.removesuffix(PARTS[0])
        if linear != key:
            try:
                up, weight = adapter[linear + PARTS[1]], merged[linear + ".weight"]
                merged[linear + ".weight"] = (weight.float() + scale * (up.float() @ value.float())).to(weight.dtype)
            except (KeyError, RuntimeError) as error:
                raise ValueError(f"the adapter does not fit the model at {linear}: {error}") from error
        elif key.endswith(PARTS[2]):
            bias = merged[key.removesuffix(PARTS[2]) + ".bias"]
            merged[key.removesuffix(PARTS[2]) + ".bias"] = (bias.float() + scale * value.float()).to(bias.dtype)
        elif not key.endswith(PARTS):
            merged[key] = value


def widened(state: Mapping[str, Tensor], adapter: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The base model's tensors, with zeros for the input channels that only the adapter knows: `img_in`, 64 to 128."""
    padded = dict(state)
    down, weight = adapter.get("img_in.lora_A.weight"), state.get("img_in.weight")
    if down is not None and weight is not None and weight.ndim == 2 and down.shape[1] > weight.shape[1]:
        padded["img_in.weight"] = F.pad(weight, (0, down.shape[1] - weight.shape[1]))
    return padded
