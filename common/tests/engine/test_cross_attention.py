"""Cross-attention to padded texts that rates the tokens it computes: s2, renewed in the middle of a cycle, or frozen."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from toy import HEADS, WIDTH, attn, mlp, spec, stack

import toca.engine.attention
from toca.engine.attention import attention, attention_with_entropy
from toca.engine.cache import NO_CACHE, Cache, LayerCache, RunCache, UncachedLayer
from toca.methods import FORA, DuCa, Method, NoCaching, ToCa
from toca.planning.memory import Held, predict
from toca.planning.ranking import Batch, Timeline
from toca.planning.scores import ALL_SCORES, SCORES
from toca.planning.spec import ModelSpec

TOKENS, LENGTH, DEPTH, STEPS = 15, 6, 3, 9
LENGTHS = torch.tensor([6, 2])  # of two texts
CROSS = replace(mlp(), name="cross_attn", inputs=(), gate=(), entropy_by="cross_attn")
BRANCHES = (attn(), CROSS, mlp(entropy_by="cross_attn"))
METHOD = ToCa(interval=3, ratio=0.3, ratio_schedule="constant")  # 4 of 15 tokens


def model_spec(coupled_rows: int = 2) -> ModelSpec:
    blocks = replace(stack(depth=DEPTH, branches=BRANCHES), once=2 * LENGTH * WIDTH)
    return spec(blocks, coupled_rows=coupled_rows, once=(LENGTH * WIDTH, 0))


class Block(nn.Module):
    uncached = UncachedLayer("attn", "cross_attn", "mlp")

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.q, self.kv = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        self.fc1, self.fc2 = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor, cache: LayerCache = uncached) -> Tensor:
        def attn(x: Tensor) -> Tensor:
            return cache.attend(*self.qkv(x).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)).transpose(1, 2).flatten(2)

        def cross_attn(x: Tensor) -> Tensor:
            k, v = cache.once("kv", lambda: self.kv(text)).unflatten(-1, (2, HEADS, -1)).permute(2, 0, 3, 1, 4)
            return cache.attend(2 * self.q(x).unflatten(-1, (HEADS, -1)).transpose(1, 2), 2 * k, v, mask=mask).transpose(1, 2).flatten(2)

        x = x + cache.attn(attn, x)
        x = x + cache.cross_attn(cross_attn, x)
        return x + cache.mlp(lambda x: self.fc2(F.gelu(self.fc1(x))), x)


class Model(nn.Module):
    """Rows are [half; half] of images, whose second half attends to the negated text."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))

    @torch.no_grad()
    def forward(self, x: Tensor, text: Tensor, mask: Tensor, cache: RunCache = NO_CACHE) -> Tensor:
        text = cache.once("text", lambda: self.embed(text))
        cache.step(x)
        for block, layer in cache.walk("blocks", self.blocks):
            x = block(x, text, mask, layer)
        return cache.hidden(x)


MODEL = Model()


def inputs(images: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, text and mask of both halves."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(images, TOKENS, WIDTH, generator=generator)
    text = torch.randn(images, LENGTH, WIDTH, generator=generator)
    mask = torch.arange(LENGTH) < LENGTHS.repeat(images)[:images, None]
    return torch.cat([x, x]), torch.cat([text, -text]), torch.cat([mask, mask])


def run(method: Method, cache_of: ModelSpec, x: Tensor, text: Tensor, mask: Tensor, watch=None, **options) -> tuple[Tensor, list[Held]]:
    outputs, held = [], []
    with Cache(cache_of, method, STEPS, **options) as cache:
        for step in range(STEPS):
            outputs.append(MODEL(x + 0.2 * step, text, mask, cache))
            held.append(cache.held)
            if watch:
                watch(cache)
    return torch.stack(outputs), held


# ---- attention ------------------------------------------------------------------------------------------------------------------------


def random_qkv(rows: int, heads: int, n: int, length: int, d: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(rows, heads, n, d), 2 * torch.randn(rows, heads, length, d), torch.randn(rows, heads, length, d)


@pytest.mark.parametrize("tile", [2**18, 300, 1])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 4), (4, 2, 37, 5, 8), (3, 5, 100, 24, 4)])
def test_output_and_entropy_equal_those_of_an_explicit_map(shape, parts, tile, monkeypatch):
    """In any number of tiles, with texts of one to all tokens."""
    monkeypatch.setattr(toca.engine.attention, "CPU_TILE", tile)
    q, k, v = random_qkv(*shape)
    mask = torch.arange(shape[3]) < (1 + torch.arange(shape[0]) % shape[3])[:, None]
    for some in (mask, None):
        logits = q.double() @ k.double().mT * shape[4] ** -0.5
        weights = (logits if some is None else logits.masked_fill(~some[:, None, None], -torch.inf)).softmax(dim=-1)
        p = weights.mean(dim=1) / parts
        out, entropy = attention_with_entropy(q, k, v, some, parts)
        torch.testing.assert_close(out.double(), weights @ v.double(), atol=1e-5, rtol=0)
        torch.testing.assert_close(entropy.double(), -parts * (p * (p + 1e-7).log()).sum(dim=-1), atol=1e-5, rtol=0)
        torch.testing.assert_close(attention(q, k, v, some), out, atol=1e-5, rtol=0)


def test_an_image_of_two_rows_has_the_entropy_of_both_texts():
    q, k, v = random_qkv(2, 1, 3, 4, 8)
    _, alone = attention_with_entropy(q, k, v)
    _, shared = attention_with_entropy(q, k, v, parts=2)
    torch.testing.assert_close(shared.mean(dim=0), alone.mean(dim=0) + torch.tensor(2.0).log(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_entropy_is_float32_in_reduced_precision(dtype):
    q, k, v = (x.to(dtype) for x in random_qkv(2, 2, 30, 7, 8))
    out, entropy = attention_with_entropy(q, k, v)
    expected, exact = attention_with_entropy(q.float(), k.float(), v.float())
    assert out.dtype == dtype and entropy.dtype == torch.float32
    torch.testing.assert_close(entropy, exact, atol=1e-5, rtol=0)
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=0)


def test_what_is_masked_has_no_influence():
    q, k, v = random_qkv(2, 2, 9, 6, 4)
    mask = torch.arange(6) < torch.tensor([3, 5])[:, None]
    hidden = torch.where(mask[:, None, :, None], 0.0, 1e4)
    for a, b in zip(attention_with_entropy(q, k, v, mask), attention_with_entropy(q, k + hidden, v + hidden, mask), strict=True):
        assert torch.equal(a, b)


# ---- plan -----------------------------------------------------------------------------------------------------------------------------


def scored(method: Method, name: str = "cross_attn") -> str:
    return "".join("x" if row["blocks", 0, name].score else "." for row in method.plan(model_spec(), STEPS).steps)


@pytest.mark.parametrize(
    ("method", "scores"),
    [
        (METHOD, "xxxxxxxxx"),  # the MLP of the same step reads the last
        (replace(METHOD, frozen=True), "x..x..x.."),
        (replace(METHOD, ratio=0.0), "........."),
        (replace(METHOD, score="kv-norm"), "........."),
        (DuCa(interval=3, ratio=0.3, ratio_schedule="constant"), "xx.xx.xx."),
    ],
)
def test_cross_attention_is_scored_where_somebody_reads_it(method, scores):
    assert scored(method) == scores
    assert scored(method, "attn") == ("x..x..x.." if getattr(method, "score", "") == "kv-norm" else ".........")


def test_the_last_refresh_before_a_full_step_is_scored_only_for_what_follows_in_the_step():
    """With an MLP that chooses nothing only cross-attention itself reads its scores: at the next step."""
    alone = spec(stack(depth=1, branches=(attn(), CROSS)))
    plan = METHOD.plan(alone, STEPS)
    assert [row["blocks", 0, "cross_attn"].score for row in plan.steps] == [True, True, False] * 3


def test_frozen_scores_are_ranked_for_the_cycle_and_live_ones_for_a_step():
    some = model_spec()
    layers = range(DEPTH)

    def ranked(method: Method, name: str) -> list[list[Batch]]:
        return Timeline(method.plan(some, 6), some.stacks[0], some.stacks[0].branch(name), ALL_SCORES["entropy"]).batches

    frozen = [[], [Batch(layers, (1, 2))], [], [], [Batch(layers, (4, 5))], []]
    assert [ranked(replace(METHOD, frozen=True), name) for name in ("cross_attn", "mlp")] == [frozen, frozen]
    assert ranked(METHOD, "cross_attn") == [[Batch(layers, (step,))] if step % 3 else [] for step in range(6)]
    alone = [[Batch(range(layer, layer + 1), (step,), waits=True) for layer in layers] for step in range(6)]
    assert ranked(METHOD, "mlp") == [alone[step] if step % 3 else [] for step in range(6)]


# ---- run ------------------------------------------------------------------------------------------------------------------------------


def test_refreshed_tokens_alone_are_rated_anew():
    kept: list[Tensor] = []

    def watch(cache: Cache) -> None:
        cross, mlp = cache.selector("blocks", "cross_attn"), cache.selector("blocks", "mlp")
        assert torch.equal(cross.base, mlp.base) and cross.base.shape == (DEPTH, 2, TOKENS)
        for layer in range(DEPTH) if cache.index % 3 else ():
            refreshed = torch.zeros(4 * TOKENS, dtype=torch.bool)
            refreshed[cross.chosen[layer]] = True
            first, second = refreshed.view(2, 2, TOKENS)
            assert torch.equal(first, second) and first.sum() == 2 * 4  # both halves choose alike
            changed = cross.base[layer] != kept[-1][layer]
            assert not (changed & ~first).any() and (changed & first).any()
        kept.append(cross.base.clone())

    run(METHOD, model_spec(), *inputs(), watch=watch)
    assert len(kept) == STEPS


def test_the_mlp_is_ranked_by_the_entropies_that_its_step_left():
    with Cache(model_spec(), METHOD, STEPS) as cache:
        x, text, mask = inputs()
        for step in range(2):
            MODEL(x + 0.2 * step, text, mask, cache)
        mlp = cache.selector("blocks", "mlp")
        fresh = torch.zeros_like(mlp.refreshed_at)  # as before the choice: no token was stale
        order = mlp.scores(1, range(DEPTH), fresh).argsort(dim=-1, descending=True, stable=True)[..., :4]
        for layer in range(DEPTH):
            assert torch.equal(mlp.chosen[layer].view(4, 4)[:2] - torch.tensor([[0], [TOKENS]]), order[layer])


def test_frozen_scores_stay_in_a_cycle_and_choose_otherwise():
    outputs, bases = [], []
    for frozen in (False, True):
        method = replace(METHOD, frozen=frozen)
        outputs.append(run(method, model_spec(), *inputs(), watch=lambda c: bases.append(c.selector("blocks", "mlp").base.clone()))[0])
    live, still = bases[:STEPS], bases[STEPS:]
    assert torch.equal(still[0], still[2]) and not torch.equal(still[2], still[3]) and not torch.equal(live[0], live[2])
    assert torch.equal(outputs[0][0], outputs[1][0]) and not torch.equal(*outputs)


@pytest.mark.parametrize("score", SCORES)
def test_halves_may_change_places_and_images_may_be_alone(score):
    """What couples halves knows no order, and no image sees another."""
    method = replace(METHOD, score=score)
    x, text, mask = inputs()
    together, _ = run(method, model_spec(), x, text, mask, seeds=[5, 6])
    swapped, _ = run(method, model_spec(), *(torch.cat(t.chunk(2)[::-1]) for t in (x, text, mask)), seeds=[5, 6])
    torch.testing.assert_close(swapped, torch.cat(together.chunk(2, dim=1)[::-1], dim=1), atol=1e-5, rtol=0)
    for image in range(2):
        alone, _ = run(method, model_spec(), *(t[image::2] for t in (x, text, mask)), seeds=[5 + image])
        torch.testing.assert_close(alone, together[:, image::2], atol=1e-5, rtol=0)


def test_rows_that_are_not_coupled_choose_for_themselves():
    def watch(cache: Cache) -> None:
        if cache.index == 1:
            rows = cache.selector("blocks", "mlp").chosen[0].view(4, 4) - TOKENS * torch.arange(4)[:, None]
            assert not torch.equal(rows[:2].sort().values, rows[2:].sort().values)
            assert cache.selector("blocks", "mlp").base.shape == (DEPTH, 4, TOKENS)

    run(METHOD, model_spec(coupled_rows=1), *inputs(), watch=watch)


@pytest.mark.parametrize("method", [NoCaching(), FORA(interval=1), replace(METHOD, ratio=1.0), replace(METHOD, interval=1)], ids=repr)
def test_what_caches_nothing_changes_nothing(method):
    x, text, mask = inputs()
    plain = torch.stack([MODEL(x + 0.2 * step, text, mask) for step in range(STEPS)])
    assert torch.equal(run(method, model_spec(), x, text, mask)[0], plain)


def test_rows_of_images_must_fill_the_batch():
    x, text, mask = inputs()
    with Cache(model_spec(), METHOD, 2) as cache, pytest.raises(ValueError, match="an item has 2 rows, got a batch of 3"):
        MODEL(x[:3], text[:3], mask[:3], cache)


# ---- memory ---------------------------------------------------------------------------------------------------------------------------

KEPT = 4 * 4 * DEPTH * 2 * LENGTH * WIDTH  # bytes of the keys and values of four rows


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("rows, coupled", [(4, 2), (4, 1), (2, 2)])
def test_predicted_bytes_are_held(score, frozen, rows, coupled):
    method, some = replace(METHOD, score=score, frozen=frozen), model_spec(coupled)
    _, held = run(method, some, *(t[:: 4 // rows] for t in inputs()))
    assert held == predict(method.plan(some, STEPS), method, rows, 4, modulation_budget=0)


def test_keys_and_values_beyond_the_budget_are_computed_when_needed(monkeypatch):
    calls = []
    monkeypatch.setattr(nn.Linear, "forward", lambda self, x: calls.append(self) or F.linear(x, self.weight, self.bias))
    outputs = {}
    for budget in (KEPT, KEPT - 1):
        calls.clear()
        outputs[budget], held = run(METHOD, model_spec(), *inputs(), once_budget=budget)
        assert held == predict(METHOD.plan(model_spec(), STEPS), METHOD, 4, 4, 0, budget)
        assert held[0].once == 4 * 4 * LENGTH * WIDTH + (KEPT if budget == KEPT else 0)
        assert [calls.count(block.kv) for block in MODEL.blocks] == [1 if budget == KEPT else STEPS] * DEPTH
        assert calls.count(MODEL.embed) == 1
    assert torch.equal(*outputs.values())
