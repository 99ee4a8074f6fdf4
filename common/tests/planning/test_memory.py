"""Predicted bytes are held bytes, on a model of two stacks with three branches, two widths of stream and two cycles."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import torch.nn as nn
from torch import Tensor

from toca.engine.cache import Cache, LayerCache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.memory import Held, attention_maps, predict
from toca.planning.schedule import Cycle
from toca.planning.scores import SCORES
from toca.planning.spec import Branch, Cost, ModelSpec, Stack

WIDTH, TOKENS = 8, 12
FREE = {"matmul": Cost(), "upstream": Cost()}


def spec(slow_cross: bool = True) -> ModelSpec:
    """A stack `pair` (attention, MLP) on 12 tokens, then a stack `trio` on 24 tokens, whose cross-attention may follow a longer cycle."""

    def branches(tokens: int) -> tuple[Branch, Branch]:
        mlp = Branch("mlp", tokens, WIDTH, FREE, tokenwise=True, inputs=(2,), gate=(3,), grid=(tokens // 4, 4), scored_by="attn")
        return Branch("attn", tokens, WIDTH, FREE, inputs=(0,), gate=(1,)), mlp

    cross = Branch("cross", 2 * TOKENS, WIDTH, FREE, tokenwise=True, scored_by="attn", interval_scale=2 if slow_cross else 1)
    attn, mlp = branches(2 * TOKENS)
    stacks = (
        Stack("pair", 2, branches(TOKENS), (4, WIDTH), layer_cost={}),
        Stack("trio", 3, (attn, cross, mlp), (4, WIDTH), layer_cost={}),
    )
    cycles = dict(fora=Cycle(), toca=Cycle(stretch=(1.4, -0.8)), duca=Cycle(), taylorseer=Cycle(lead=2, anchor="last_full"))
    return ModelSpec("toy", stacks, forward_cost={}, hidden=(TOKENS, WIDTH), cycles=cycles)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.mlp, self.modulation = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 4 * WIDTH)

    def forward(self, x: Tensor, c: Tensor, cache: LayerCache) -> Tensor:
        scale_a, gate_a, scale_m, gate_m = cache.modulation(self.modulation, c)

        def attn(x: Tensor) -> Tensor:
            q, k, v = self.qkv(x * scale_a).unflatten(-1, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            return cache.attend(q, k, v).transpose(1, 2).flatten(2)

        x = x + gate_a * cache.attn(attn, x)
        if hasattr(cache, "cross"):
            x = x + cache.cross(self.mlp, x)
        return x + gate_m * cache.mlp(lambda x: self.mlp(x * scale_m), x)


@torch.no_grad()
def run(model_spec: ModelSpec, method: Method, steps: int, rows: int, budget: int) -> list[Held]:
    torch.manual_seed(0)
    blocks = {stack.name: nn.ModuleList(Block() for _ in range(stack.depth)) for stack in model_spec.stacks}
    c = torch.randn(steps, rows, WIDTH)
    held = []
    with Cache(model_spec, method, steps, modulation_budget=budget) as cache:
        for name, stack in blocks.items():
            cache.precompute_modulation(name, [block.modulation for block in stack], c, torch.arange(rows))
        for step in range(steps):
            x = torch.randn(rows, TOKENS, WIDTH)
            cache.step(x)
            for block, layer in cache.walk("pair", blocks["pair"]):
                x = block(x, c[step], layer)
            x = torch.cat([x, x], dim=1)
            for block, layer in cache.walk("trio", blocks["trio"]):
                x = block(x, c[step], layer)
            cache.hidden(x[:, :TOKENS].clone())
            held.append(cache.held)
            assert cache.nbytes == held[-1].total
    assert cache.nbytes == 0
    return held


METHODS = [
    NoCaching(),
    FORA(3),
    TaylorSeer(3, 2),
    *(ToCa(3, ratio, "constant", score) for score, ratio in product(SCORES, (0.0, 0.3, 1.0))),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_several_stacks_branches_and_cycles(method: Method) -> None:
    for steps, rows in product((1, 8), (1, 2)):
        assert run(spec(), method, steps, rows, 2**28) == predict(method.plan(spec(), steps), method, rows, 4)


@pytest.mark.parametrize("score", SCORES)
def test_skipped_steps(score: str) -> None:
    method = DuCa(4, 0.3, "constant", score)
    held = run(spec(slow_cross=False), method, 9, 2, 2**28)
    assert held == predict(method.plan(spec(slow_cross=False), 9), method, 2, 4)
    assert any(h.hidden for h in held)


def test_the_stacks_share_the_modulation_budget() -> None:
    method = ToCa(3, 0.3, "constant")
    plan = method.plan(spec(), 8)
    both = predict(plan, method, 2, 4)[0].modulation
    sizes = {budget: predict(plan, method, 2, 4, budget)[0].modulation for budget in (0, both - 1, both)}
    assert 0 == sizes[0] < sizes[both - 1] < sizes[both] == both
    for budget in sizes:
        assert run(spec(), method, 8, 2, budget) == predict(plan, method, 2, 4, budget)


def test_the_published_codes_attention_maps() -> None:
    for score, maps in (("attention", 1), ("compress", 1), ("norm", 0)):
        method = ToCa(score=score, ratio_schedule="constant")
        assert attention_maps(method.plan(spec(), 8), method, 2, 4) == maps * 2 * 4 * (2 * 12**2 + 3 * 24**2)
    assert attention_maps(FORA().plan(spec(), 8), FORA(), 2, 4) == 0


@pytest.mark.parametrize(("rows", "element_size"), ((0, 4), (2, 0)))
def test_refuses_nothing_to_hold(rows: int, element_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        predict(FORA().plan(spec(), 8), FORA(), rows, element_size)
