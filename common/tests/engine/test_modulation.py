import pytest
import torch
import torch.nn as nn
from toy import WIDTH, Model, attn, mlp, run, spec, stack

from toca.engine.cache import Cache
from toca.engine.modulation import ModulationTable, some_chunks
from toca.methods import FORA, DuCa, TaylorSeer, ToCa
from toca.planning.plan import Kind, chunks_needed


def linears(depth):
    torch.manual_seed(1)
    return [nn.Linear(WIDTH, 6 * WIDTH) for _ in range(depth)]


@pytest.mark.parametrize("needed", [(), (2, 5), (0, 1, 2, 3, 4, 5), (4,)])
def test_some_chunks_are_those_of_the_whole_product(needed):
    linear, activated = linears(1)[0], torch.randn(3, WIDTH)
    whole = linear(activated).unsqueeze(1).chunk(6, dim=-1)
    chunks = some_chunks(linear, activated, needed)
    assert [i for i, chunk in enumerate(chunks) if chunk is not None] == list(needed)
    for i in needed:
        torch.testing.assert_close(chunks[i], whole[i], atol=1e-6, rtol=0)


@pytest.mark.parametrize("needed", [(1, 5, 6), (0, 7), tuple(range(8))])
def test_chunks_of_several_linears_follow_one_another(needed):
    pair, activated = (nn.Linear(WIDTH, 6 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)), torch.randn(3, WIDTH)
    whole = [chunk for linear in pair for chunk in linear(activated).unsqueeze(1).split(WIDTH, dim=-1)]
    chunks = some_chunks(pair, activated, needed)
    assert [i for i, chunk in enumerate(chunks) if chunk is not None] == list(needed)
    for i in needed:
        torch.testing.assert_close(chunks[i], whole[i], atol=1e-6, rtol=0)


def test_a_table_of_several_linears_is_that_of_their_join():
    joined, activated, row_of = linears(3), torch.randn(8, 1, WIDTH), torch.zeros(2, dtype=torch.long)
    pairs = []
    for linear in joined:
        pair = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)
        for part, rows in zip(pair, (slice(4 * WIDTH), slice(4 * WIDTH, None))):
            part.weight.data, part.bias.data = linear.weight.data[rows], linear.bias.data[rows]
        pairs.append(pair)
    plan = ToCa(interval=3).plan(spec(), 8)
    one, several = (ModulationTable(plan.spec.stacks[0], plan, some, activated, row_of) for some in (joined, pairs))
    assert one.nbytes == several.nbytes
    for step in range(8):
        for layer in range(3):
            for a, b in zip(one.at(step, layer), several.at(step, layer), strict=True):
                assert (a is None) == (b is None)
                if a is not None:
                    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "method, needed",
    [
        (FORA(interval=2), {Kind.FULL: (0, 1, 2, 3, 4, 5), Kind.REUSE: (2, 5)}),
        (ToCa(interval=2), {Kind.FULL: (0, 1, 2, 3, 4, 5), Kind.PARTIAL: (2, 3, 4, 5)}),
        (DuCa(interval=3), {Kind.FULL: (0, 1, 2, 3, 4, 5), Kind.PARTIAL: (2, 3, 4, 5), Kind.SKIP: ()}),
        (TaylorSeer(interval=3), {Kind.FULL: (0, 1, 2, 3, 4, 5), Kind.FORECAST: (2, 5)}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_layer_reads_the_inputs_it_computes_with_and_the_gates_it_adds_with(method, needed):
    plan = method.plan(spec(), 6)
    found = {row["blocks", 1, "mlp"].kind: chunks_needed(plan, plan.spec.stacks[0], step, 1) for step, row in enumerate(plan.steps)}
    assert found == needed


def test_a_table_holds_what_each_step_and_layer_reads_and_no_more():
    plan = ToCa(interval=3, upstream_exact=True).plan(spec(), 8)
    layers, activated, row_of = linears(3), torch.randn(8, 2, WIDTH), torch.tensor([1, 0, 1, 1])
    table, held = ModulationTable(plan.spec.stacks[0], plan, layers, activated, row_of), 0
    for step in range(8):
        for layer in range(3):
            expected = layers[layer](activated[step][row_of]).unsqueeze(1).chunk(6, dim=-1)
            needed = chunks_needed(plan, plan.spec.stacks[0], step, layer)
            held += len(needed) * 4 * WIDTH * 4
            for chunk, value in enumerate(table.at(step, layer)):
                assert (value is not None) == (chunk in needed)
                if value is not None:
                    torch.testing.assert_close(value, expected[chunk], atol=1e-6, rtol=0)
    assert table.nbytes == held


def precompute(cache, model, x, steps):
    times = 0.3 * torch.arange(steps)[:, None]
    activated = nn.functional.silu(torch.sin(times + torch.arange(WIDTH)))[:, None]  # one distinct row
    row_of = torch.zeros(len(x), dtype=torch.long)
    return [cache.precompute_modulation(name, [b.modulation for b in blocks], activated, row_of) for name, blocks in model.stacks.items()]


@torch.no_grad()
def test_a_run_with_precomputed_modulations_is_the_same_run():
    model_spec, steps = spec(stack("first", 2), stack("second", 2, [attn(), mlp()])), 7
    model, x = Model(model_spec), torch.randn(2, 15, WIDTH)
    with Cache(model_spec, ToCa(), steps) as cache:
        plain = run(model, cache, x, steps)
    with Cache(model_spec, ToCa(), steps) as cache:
        assert precompute(cache, model, x, steps) == [True, True]
        for ours, expected in zip(run(model, cache, x, steps), plain, strict=True):
            torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    with Cache(model_spec, ToCa(), steps, modulation_budget=1000) as cache:
        assert precompute(cache, model, x, steps) == [False, False] and cache.nbytes == 0
