"""A model of FLUX's single blocks in small: attention that only feeds the rest of its block, from which tokens are refreshed."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from toy import HEADS, WIDTH, Model, spec, stack

from toca.engine.cache import LayerCache, UncachedLayer
from toca.engine.linear import linear_part
from toca.planning.spec import Branch, Cost, ModelSpec

FREE = {"matmul": Cost(), "upstream": Cost()}
QKV, MLP = slice(3 * WIDTH), slice(3 * WIDTH, None)


def feeding_spec(depth: int = 3, tokens: int = 15, **fields: Any) -> ModelSpec:
    attn = Branch("attn", tokens, WIDTH, FREE, inputs=(0,), feeds="total")
    total = Branch("total", tokens, WIDTH, FREE, tokenwise=True, inputs=(0,), gate=(1,), scored_by="attn")
    return spec(stack(depth=depth, branches=[attn, total], chunks=2), **fields)


class FeedingBlock(nn.Module):
    uncached = UncachedLayer("attn", "total")

    def __init__(self) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(WIDTH, 5 * WIDTH), nn.Linear(3 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor, c: Tensor, cache: LayerCache = uncached) -> Tensor:
        scale, gate = cache.modulation(self.modulation, c)

        def attn(x: Tensor) -> Tensor:
            q, k, v = linear_part(self.linear1, x * scale, QKV).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            return linear_part(self.linear2, cache.attend(q, k, v).transpose(1, 2).flatten(2), inputs=slice(WIDTH))

        def total(x: Tensor, attn: Tensor) -> Tensor:
            hidden = linear_part(self.linear1, x * scale, MLP).relu()
            return linear_part(self.linear2, hidden, inputs=slice(WIDTH, None), bias=False) + attn

        return x + gate * cache.total(total, x, fed=cache.attn(attn, x))


class FeedingModel(Model):
    def __init__(self, model_spec: ModelSpec, seed: int = 0) -> None:
        super().__init__(model_spec, seed)
        torch.manual_seed(seed)
        depths = {some.name: some.depth for some in model_spec.stacks}
        self.stacks = nn.ModuleDict({name: nn.ModuleList(FeedingBlock() for _ in range(depth)) for name, depth in depths.items()})
