"""Small models and specs of the shapes that forks have, built for the engine's own tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from toca.engine.cache import NO_CACHE, LayerCache, RunCache, UncachedLayer
from toca.planning.schedule import Bilinear, Cycle
from toca.planning.spec import Branch, Cost, ModelSpec, Spatial, Stack

CYCLES = {"fora": Cycle(), "toca": Cycle(), "duca": Cycle(), "taylorseer": Cycle(lead=2, anchor="last_full")}
RATIO_SCHEDULES = {"ToCa": Bilinear(branch={"mlp": 4.0})}  # 0.07 of 15 tokens would be one
WIDTH, HEADS = 8, 2


def attn(tokens: int = 15, **fields: Any) -> Branch:
    cost = {"matmul": Cost(per_token=8 * WIDTH**2 + 4 * tokens * WIDTH), "upstream": Cost(fixed=3, per_token=10)}
    return Branch("attn", tokens, WIDTH, cost, inputs=(0, 1), gate=(2,), **fields)


def mlp(tokens: int = 15, grid: tuple[int, int] | None = (3, 5), **fields: Any) -> Branch:
    cost = {"matmul": Cost(per_token=8 * WIDTH**2), "upstream": Cost(per_token=7)}
    fields = dict(tokenwise=True, scored_by="attn") | fields
    return Branch("mlp", tokens, WIDTH, cost, inputs=(3, 4), gate=(5,), grid=grid, **fields)


def stack(name: str = "blocks", depth: int = 3, branches: Sequence[Branch] | None = None, chunks: int = 6) -> Stack:
    branches = (attn(), mlp()) if branches is None else tuple(branches)
    layer_cost = {"matmul": 2 * chunks * WIDTH**2, "upstream": 5}
    return Stack(name, depth, branches, (chunks, WIDTH), layer_cost, {"upstream": 11})


def spec(*stacks: Stack, spatial: Mapping[str, Spatial] | None = None, **fields: Any) -> ModelSpec:
    stacks = stacks or (stack(),)
    spatial = {"toca": Spatial(2, 0.5), "duca": Spatial(2, 0.5)} if spatial is None else spatial
    fields = dict(cycles=CYCLES, ratio_schedules=RATIO_SCHEDULES, spatial=spatial) | fields
    return ModelSpec("toy", stacks, {"matmul": 0}, (stacks[0].branches[0].tokens, WIDTH), **fields)


class Block(nn.Module):
    """Attention and an MLP, modulated and gated, as in DiT."""

    uncached = UncachedLayer("attn", "mlp")

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH)

    def forward(self, x: Tensor, c: Tensor, cache: LayerCache = uncached) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = cache.modulation(self.modulation, F.silu(c))

        def attn(x: Tensor) -> Tensor:
            q, k, v = self.qkv(x * (1 + scale_a) + shift_a).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
            return self.proj(cache.attend(q, k, v).transpose(1, 2).flatten(2))

        def mlp(x: Tensor) -> Tensor:
            return self.fc2(F.gelu(self.fc1(x * (1 + scale_m) + shift_m)))

        x = x + gate_a * cache.attn(attn, x)
        return x + gate_m * cache.mlp(mlp, x)


class Model(nn.Module):
    """Blocks in one stack per name; the conditioning of a call is a vector of its time `t`."""

    def __init__(self, spec: ModelSpec, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stacks = nn.ModuleDict({stack.name: nn.ModuleList(Block() for _ in range(stack.depth)) for stack in spec.stacks})

    @torch.no_grad()
    def forward(self, x: Tensor, t: float, cache: RunCache = NO_CACHE) -> Tensor:
        c = torch.sin(t + torch.arange(WIDTH, dtype=x.dtype)).expand(len(x), -1)
        cache.step(x)
        for name, blocks in self.stacks.items():
            for block, layer in cache.walk(name, blocks):
                x = block(x, c, layer)
        return cache.hidden(x)


def run(model: Model, cache: RunCache, x: Tensor, num_steps: int) -> list[Tensor]:
    """Outputs of a run whose input drifts from step to step."""
    return [model(x + 0.1 * step, 0.3 * step, cache) for step in range(num_steps)]
