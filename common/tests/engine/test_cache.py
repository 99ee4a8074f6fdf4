import copy
import gc
import weakref
from dataclasses import replace

import pytest
import torch
from toy import WIDTH, Model, attn, mlp, run, spec, stack

from toca.engine.cache import NO_CACHE, Cache, UncachedLayer
from toca.engine.slots import gather
from toca.methods import FORA, DuCa, NoCaching, TaylorSeer, ToCa
from toca.planning.plan import Kind
from toca.planning.spec import HIDDEN, RESERVED

STEPS = 8
METHODS = [FORA(), ToCa(), ToCa(score="kv-norm"), ToCa(score="similarity"), ToCa(score="random"), DuCa(interval=4), TaylorSeer(interval=3)]
TWO_STACKS = spec(stack("first", 2), stack("second", 1, [attn(), mlp()]))


@pytest.fixture(scope="module")
def model():
    return Model(TWO_STACKS)


@pytest.fixture
def x():
    return torch.randn(2, 15, WIDTH, generator=torch.Generator().manual_seed(0))


def outputs(model, method, x, steps=STEPS, **options):
    with Cache(TWO_STACKS, method, steps, **options) as cache:
        return torch.stack(run(model, cache, x, steps))


def names(methods):
    return [f"{method.name}-{getattr(method, 'score', '')}" for method in methods]


# ---- misuse ---------------------------------------------------------------------------------------------------------------------------


def test_a_cache_counts_its_steps(model, x):
    with Cache(TWO_STACKS, FORA(), 2) as cache:
        run(model, cache, x, 2)
        with pytest.raises(RuntimeError, match="made for 2 steps and the model is called once more"):
            model(x, 0.0, cache)


def test_a_closed_cache_says_so_and_holds_nothing(model, x):
    with Cache(TWO_STACKS, ToCa(), STEPS) as cache:
        run(model, cache, x, 2)
        assert cache.nbytes > 0
    assert cache.nbytes == 0
    with pytest.raises(RuntimeError, match="this cache is closed: open a new Cache"):
        model(x, 0.0, cache)


@pytest.mark.parametrize("shape", [(3, 15, WIDTH), (2, 14, WIDTH), (2, 15, WIDTH + 1)])
def test_the_shape_may_not_change_in_a_run(model, x, shape):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache:
        model(x, 0.0, cache)
        with pytest.raises(RuntimeError, match=rf"run on tokens \(2, 15, {WIDTH}\), got"):
            cache.step(torch.zeros(shape))


def test_the_first_shape_must_be_that_of_the_spec():
    with Cache(TWO_STACKS, FORA(), STEPS) as cache, pytest.raises(RuntimeError, match=r"15 tokens of width 8, got \(16, 8\)"):
        cache.step(torch.zeros(2, 16, WIDTH))


def test_caching_with_gradients_is_refused(x):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache, pytest.raises(RuntimeError, match=r"under torch\.no_grad"):
        cache.step(x.requires_grad_())


def test_a_stack_of_another_depth_is_refused(model, x):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache:
        cache.step(x)
        with pytest.raises(ValueError, match="longer"):
            list(cache.walk("first", model.stacks["first"][:1]))


def test_seeds_must_divide_the_rows(x):
    with Cache(TWO_STACKS, ToCa(score="random"), 2, seeds=[1, 2, 3]) as cache, pytest.raises(ValueError, match="3 seeds do not divide 2"):
        cache.step(x)


# ---- memory ---------------------------------------------------------------------------------------------------------------------------


def test_an_exception_frees_everything(model, x):
    with pytest.raises(KeyboardInterrupt), Cache(TWO_STACKS, ToCa(), STEPS) as cache:
        run(model, cache, x, 2)
        stored = weakref.ref(cache._layers["first"][0].mlp.slot.value)
        assert stored() is not None
        raise KeyboardInterrupt
    gc.collect()
    assert stored() is None and cache.nbytes == 0


@pytest.mark.parametrize("method", [FORA(interval=3), TaylorSeer(interval=3), DuCa(interval=3), NoCaching()], ids=lambda m: m.name)
def test_nothing_stays_that_nobody_reads(model, x, method):
    """Seven steps end on a full one: by then everything is free again, and an uncached run never holds anything."""
    with Cache(TWO_STACKS, method, 7) as cache:
        held = [model(x + 0.1 * step, 0.3 * step, cache) is not None and cache.held for step in range(7)]
    assert held[-1].outputs == held[-1].hidden == 0
    assert (max(h.outputs for h in held) > 0) == cache.plan.caches


def test_an_uncached_pass_keeps_nothing_and_calls_every_branch_on_all_tokens(x):
    assert NO_CACHE.step(x) is None and NO_CACHE.hidden(x) is x and not NO_CACHE.precompute_modulation("first", [], x, x)
    layer = UncachedLayer("attn", "mlp")
    assert torch.equal(layer.mlp(lambda a, b: a + b, x, x), x + x)
    assert torch.equal(layer.mlp(lambda a, b, c: a + b - c, x, x, fed=x), x)


@pytest.mark.parametrize("open_layer", [UncachedLayer("attn", "mlp"), None], ids=["uncached", "cached"])
def test_a_branch_that_a_block_misspells_is_an_error(open_layer, x):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache:
        cache.step(x)
        layer = open_layer or next(cache.walk("first", [None, None]))[1]
        with pytest.raises(AttributeError, match="this layer has no branch 'atn'; it has attn, mlp"):
            layer.atn(torch.tanh, x)
        assert not hasattr(layer, "atn") and copy.copy(layer).branches is layer.branches


def test_no_branch_takes_the_name_of_something_else(x):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache:
        cache.step(x)
        layer = next(cache.walk("first", [None, None]))[1]
        assert {name for name in dir(layer) if not name.startswith("_")} == {*RESERVED, "attn", "mlp"}
    assert {name for name in dir(UncachedLayer()) if not name.startswith("_")} <= RESERVED


def test_a_stack_of_another_name_is_refused(model, x):
    with Cache(TWO_STACKS, FORA(), STEPS) as cache:
        cache.step(x)
        with pytest.raises(ValueError, match="toy has no stack 'third': call `step` first, then walk first, second"):
            list(cache.walk("third", []))


def test_a_branch_waits_for_what_scores_its_tokens(x):
    with Cache(TWO_STACKS, ToCa(interval=3), STEPS) as cache:
        for step in range(2):
            cache.step(x)
            layer = next(cache.walk("first", [None, None]))[1]
            if step == 0:
                layer.mlp(torch.tanh, x)
        cache.selector("first", "mlp").ranked[1] = [None, None]
        with pytest.raises(RuntimeError, match="mlp is called before what scores its tokens"):
            layer.mlp(torch.tanh, x)


def test_only_a_branch_that_is_fed_takes_what_is_fed(x):
    with Cache(TWO_STACKS, ToCa(interval=3), STEPS) as cache:
        for step in range(2):
            cache.step(x)
            layer = next(cache.walk("first", [None, None]))[1]
            if step == 0:
                layer.mlp(torch.add, x, fed=x)
        with pytest.raises(ValueError, match="no branch feeds mlp"):
            layer.mlp(torch.add, x, fed=x)


# ---- the run --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [NoCaching(), ToCa(ratio=1.0), DuCa(ratio=1.0), FORA(interval=1), ToCa(interval=1)])
def test_what_caches_nothing_changes_nothing(model, x, method):
    assert torch.equal(outputs(model, method, x), torch.stack(run(model, NO_CACHE, x, STEPS)))


def test_refreshing_every_token_is_running_the_branch(x):
    """At upstream's ratio 1 attention is still reused, so on a model whose attention is silent."""
    model = Model(TWO_STACKS)
    for block in (*model.stacks["first"], *model.stacks["second"]):
        torch.nn.init.zeros_(block.proj.weight)
        torch.nn.init.zeros_(block.proj.bias)
    method = ToCa(ratio=1.0, upstream_exact=True)
    assert method.plan(TWO_STACKS, STEPS).kind_counts()["partial"]
    torch.testing.assert_close(outputs(model, method, x), torch.stack(run(model, NO_CACHE, x, STEPS)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_every_method_differs_from_uncached_but_starts_with_it(model, x, method):
    ours, uncached = outputs(model, method, x), torch.stack(run(model, NO_CACHE, x, STEPS))
    torch.testing.assert_close(ours[0], uncached[0], atol=1e-6, rtol=0)
    assert not torch.allclose(ours, uncached, atol=1e-4)


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_two_caches_do_not_meet(model, x, method):
    alone = [outputs(model, method, some, seeds=(1, 2)) for some in (x, -x)]
    with Cache(TWO_STACKS, method, STEPS, seeds=(1, 2)) as a, Cache(TWO_STACKS, method, STEPS, seeds=(1, 2)) as b:
        for step in range(STEPS):
            assert torch.equal(model(x + 0.1 * step, 0.3 * step, a), alone[0][step])
            assert torch.equal(model(-x + 0.1 * step, 0.3 * step, b), alone[1][step])


@pytest.mark.parametrize("method", METHODS, ids=names(METHODS))
def test_inputs_are_left_alone(model, x, method):
    before = x.clone()
    outputs(model, method, x)
    assert torch.equal(x, before)


def test_a_branch_runs_on_what_the_plan_says(x):
    """All tokens, then the chosen rows with the tensors that go beside them, scattered back over the stored ones."""
    small = spec(stack(depth=1, branches=[mlp(scored_by=None)]))
    seen = []

    def f(some, beside):
        seen.append((some, beside))
        return 10 * some + beside

    beside = torch.randn(2, 15, 3)[..., :1]
    with Cache(small, ToCa(score="norm"), 2) as cache:
        cache.step(x)
        ((_, layer),) = cache.walk("blocks", [None])
        full = layer.mlp(f, x, beside).clone()
        cache.step(x + 1)
        ((_, layer),) = cache.walk("blocks", [None])
        partial = layer.mlp(f, x + 1, beside)
        rows = cache.selector("blocks", "mlp").chosen[0]
    assert seen[1][0].shape == (2, 4, WIDTH)
    assert torch.equal(seen[1][0], gather(x + 1, rows)) and torch.equal(seen[1][1], gather(beside, rows))
    fresh = torch.zeros(30, dtype=torch.bool)
    fresh[rows] = True
    assert torch.equal(partial.flatten(0, 1)[~fresh], full.flatten(0, 1)[~fresh])
    assert torch.equal(partial.flatten(0, 1)[fresh], (10 * (x + 1) + beside).flatten(0, 1)[fresh])


def test_similarity_compares_with_the_input_of_the_last_refresh(x):
    small = spec(stack(depth=1, branches=[mlp(scored_by=None, grid=None)]))
    moved = x.clone()
    moved[:, [2, 5, 7, 11]] *= -1  # turned round since the full step: the four to refresh
    with Cache(small, ToCa(score="similarity", interval=3), 3) as cache:
        for inputs in (x, moved, moved):
            cache.step(inputs)
            ((_, layer),) = cache.walk("blocks", [None])
            layer.mlp(torch.tanh, inputs)
            if cache.index == 1:
                assert sorted(cache.selector("blocks", "mlp").chosen[0].tolist()) == [2, 5, 7, 11, 17, 20, 22, 26]


def test_a_skipped_step_runs_no_layer_and_returns_the_stored_state(model, x):
    with Cache(TWO_STACKS, DuCa(interval=4), 3) as cache:
        first = [model(x, 0.3 * step, cache) for step in range(2)][-1]
        cache.step(x)
        assert list(cache.walk("first", model.stacks["first"])) == []
        assert torch.equal(cache.hidden(x), first)


def test_what_no_step_changes_is_computed_once_and_counted(model, x):
    asked = []

    def text():
        asked.append(None)
        return torch.ones(2, 3, dtype=torch.float64)

    with Cache(TWO_STACKS, FORA(), 3) as cache:
        found = [(cache.once("text", text), model(x, 0.3 * step, cache))[0] for step in range(3)]
        assert cache.held.once == 2 * 3 * 8
        assert cache.once("other", lambda: torch.zeros(1)).nbytes + 2 * 3 * 8 == cache.held.once
    assert len(asked) == 1 and all(value is found[0] for value in found)
    assert cache.held.once == 0
    assert NO_CACHE.once("text", text) is not NO_CACHE.once("text", text) and len(asked) == 3


def test_duca_recalls_what_it_stored_where_branches_have_cycles_of_their_own(x):
    for fields in (dict(interval_scale=2), dict(interval=4), dict(interval=5)):
        uneven = spec(stack(branches=[attn(), replace(mlp(grid=None), **fields)]))
        model, method = Model(uneven), DuCa(interval=3, ratio=0.2)
        with Cache(uneven, method, 13) as cache:
            outputs = run(model, cache, x, 13)
        skipped = [step for step, row in enumerate(cache.plan.steps) if row[HIDDEN].kind is Kind.REUSE]
        assert skipped and all(torch.equal(outputs[step], outputs[step - 1]) for step in skipped)


def test_tokens_are_ranked_by_what_attention_sees_at_the_same_step():
    """Attention on a short cycle, the MLP on a long one: a step may score and refresh, and refreshes by the new scores."""
    branches = [attn(), replace(mlp(grid=None), interval_scale=2)]
    uneven, x = spec(stack(depth=1, branches=branches)), torch.zeros(1, 15, WIDTH)
    method = ToCa(interval=2, soft_fresh_weight=0.0)
    kinds = [[row["blocks", 0, name].kind for name in ("attn", "mlp")] for row in method.plan(uneven, 4).steps]
    assert kinds[2] == [Kind.FULL, Kind.PARTIAL]
    with Cache(uneven, method, 4) as cache:
        for step in range(4):
            cache.step(x)
            ((_, layer),) = cache.walk("blocks", [None])
            keys = torch.zeros(1, 1, 15, 2)
            keys[0, 0, [step, step + 4, step + 8, step + 11], 0] = 50.0  # the tokens all queries look at
            query = torch.tensor([1.0, 0.0]).expand(1, 1, 15, 2)
            layer.attn(lambda x, qkv=(query, keys, keys), layer=layer: x + layer.attend(*qkv).sum(), x)
            layer.mlp(torch.tanh, x)
            seen = step // 2 * 2  # attention looked at steps 0 and 2
            if step:
                expected = [seen, seen + 4, seen + 8, seen + 11]
                assert sorted(cache.selector("blocks", "mlp").chosen[0].tolist()) == expected, step
