import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import attn, mlp, spec, stack

from toca.engine.selection import hashed_uniform, ranked_by, selector_for, softmax_bonus, spatial_bonus
from toca.methods import ToCa
from toca.planning.spec import Spatial

quick = settings(deadline=None, max_examples=60)


def bonus_by_hand(score, grid, block, bonus):
    """Cell by cell, in reading order."""
    picture, out = score.view(grid), score.view(grid).clone()
    for top, left in itertools.product(range(0, grid[0], block), range(0, grid[1], block)):
        cell = [(r, c) for r in range(top, min(top + block, grid[0])) for c in range(left, min(left + block, grid[1]))]
        best = max(cell, key=lambda place: picture[place].item())  # of equals the first
        out[best] = picture[best] + bonus * picture[best].abs()
    return out.flatten()


@quick
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 3), st.integers(0, 2**31), st.booleans())
def test_the_best_of_every_cell_gets_the_bonus(h, w, block, seed, ties):
    """Odd grids, grids narrower than a cell, and equal scores."""
    score = torch.randn(2, h * w, generator=torch.Generator().manual_seed(seed))
    score = score.round() if ties else score
    found = spatial_bonus(score, (h, w), block, 0.6)
    torch.testing.assert_close(found, torch.stack([bonus_by_hand(row, (h, w), block, 0.6) for row in score]))
    assert (found >= score).all() and (spatial_bonus(score, (h, w), block, 0.6, upstream_exact=True) < score).any() <= (score < 0).any()


@quick
@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_cells_may_reach_over_frames(t, h, w, frames, seed):
    score = torch.rand(2, t * h * w, generator=torch.Generator().manual_seed(seed))
    found = spatial_bonus(score, (h, w), 2, 0.5, frames=frames).view(2, t, h, w)
    for starts in itertools.product(range(0, t, frames), range(0, h, 2), range(0, w, 2)):
        cell = (slice(None), *(slice(start, start + size) for start, size in zip(starts, (frames, 2, 2))))
        before, after = score.view(2, t, h, w)[cell].flatten(1), found[cell].flatten(1)
        best = before.argmax(dim=1, keepdim=True)
        torch.testing.assert_close(after, before.scatter_add(1, best, 0.5 * before.gather(1, best)))


def test_the_published_bonus_of_video_goes_to_shares_of_a_frame():
    score = torch.tensor([[0.0, 3.0, 1.0], [0.0, 0.0, -9.0]])  # two frames of one row
    shares = torch.cat((score, torch.zeros(2, 5)), dim=1).softmax(dim=1)[:, :3]  # of the 2 x 4 tokens that make cells whole
    winners = torch.tensor([[1.0, 1.5, 1.5], [1.5, 1.0, 1.0]])  # in the second frame's second cell a zero of the border wins
    torch.testing.assert_close(softmax_bonus(score.view(1, 6), (1, 3), 2, 0.5), (shares * winners).view(1, 6))


def test_upstreams_bonus_lowers_a_negative_winner():
    score = torch.tensor([[-1.0, -2.0, -3.0, -4.0]])
    torch.testing.assert_close(spatial_bonus(score, (2, 2), 2, 0.5), torch.tensor([[-0.5, -2.0, -3.0, -4.0]]))
    torch.testing.assert_close(spatial_bonus(score, (2, 2), 2, 0.5, upstream_exact=True), torch.tensor([[-1.5, -2.0, -3.0, -4.0]]))


@quick
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=5), st.integers(0, 999), st.integers(0, 5), st.integers(1, 5))
def test_draws_depend_on_seed_step_layer_and_token_alone(seeds, step, layer, tokens):
    alone = [hashed_uniform(torch.tensor([seed]), tokens)(step, range(layer, layer + 1)) for seed in seeds]
    state = torch.random.get_rng_state()
    together = hashed_uniform(torch.tensor(seeds), tokens + 3)(step, range(0, layer + 2))
    assert torch.equal(together[layer : layer + 1, :, :tokens], torch.cat(alone, dim=1))
    assert together.min() >= 0 and together.max() < 1 and torch.equal(torch.random.get_rng_state(), state)


def test_draws_are_uniform_and_uncorrelated():
    draw = hashed_uniform(torch.arange(50), 100)
    first, second = draw(0, range(20)), draw(1, range(20))
    for numbers in (first, second):
        counts = numbers.flatten().mul(10).long().bincount(minlength=10)
        assert (counts - 10_000).abs().max() < 5 * 10_000**0.5
    for a, b in ((first, second), (first[1:], first[:-1]), (first[:, 1:], first[:, :-1]), (first[..., 1:], first[..., :-1])):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].abs() < 0.02


def selector(method, steps=6, rows=2, depth=2, uniform=None, **fields):
    blocks = stack(depth=depth, branches=[attn(), mlp(**fields)])
    model = spec(blocks, spatial={"toca": Spatial(0, 0.0)})
    plan = method.plan(model, steps)
    return selector_for(plan, blocks, blocks.branch("mlp"), method.ranking(model), rows, torch.device("cpu"), uniform)


def chosen(some, layer):
    """Tokens of every row."""
    rows, tokens = some.row_offset.shape[0], some.branch.tokens
    return [sorted(r - row * tokens for r in some.chosen[layer].tolist() if r // tokens == row) for row in range(rows)]


TOCA = dict(interval=3, ratio=0.2, ratio_schedule="constant")  # 3 of 15 tokens


def test_the_highest_scores_are_chosen_per_row_and_equals_in_token_order():
    some = selector(ToCa(**TOCA))
    some.begin(0)
    mass = torch.ones(2, 15)
    mass[1, [4, 9, 14]] = 2.0
    for layer in range(2):
        some.observe(layer, mass)
    some.begin(1)
    assert chosen(some, 0) == chosen(some, 1) == [[0, 1, 2], [4, 9, 14]]


def test_staleness_grows_and_brings_forgotten_tokens_back():
    some = selector(ToCa(soft_fresh_weight=10.0, **TOCA | dict(interval=6)))
    some.begin(0)
    for layer in range(2):
        some.observe(layer, torch.arange(15.0).expand(2, 15))
    picks = []
    for step in (1, 2, 3):
        before = some.staleness[0, 0].clone()
        some.begin(step)
        picks.append(chosen(some, 0)[0])
        expected = before + 1
        expected[picks[-1]] = 0
        assert torch.equal(some.staleness[0, 0], expected)
    assert picks == [[12, 13, 14], [9, 10, 11], [6, 7, 8]]


def test_a_full_step_makes_every_token_fresh():
    some = selector(ToCa(**TOCA))
    for step in range(4):
        some.begin(step)
        if step % 3 == 0:
            assert not some.staleness.any()
    assert some.counts == [[0, 0], [3, 3], [3, 3]] * 2


def test_local_refreshes_every_token_in_time():
    """No token stays out twice the interval, however low its score."""
    some = selector(ToCa(force_fresh="local", **TOCA | dict(interval=4)), steps=30)
    some.begin(0)
    for layer in range(2):
        some.observe(layer, torch.arange(15.0).expand(2, 15))
    for step in range(1, 30):
        some.begin(step)
        assert some.staleness.max() < 2 * 4
    assert some.staleness.max() < 4  # the queue of the start is worked off


def test_a_score_of_the_input_ranks_one_layer_when_it_is_reached():
    some = selector(ToCa(score="norm", **TOCA))
    some.begin(0)
    some.begin(1)
    x = torch.zeros(2, 15, 8)
    x[0, [1, 2, 3]], x[1, [5, 6, 7]] = 1.0, 1.0
    some.look(1, x, None)
    assert some.chosen[0] is None and chosen(some, 1) == [[1, 2, 3], [5, 6, 7]]


def test_given_draws_decide_a_random_score():
    asked = []

    def uniform(step, layers):
        asked.append((step, layers))
        return torch.arange(15.0).flip(0).expand(len(layers), 2, 15)

    some = selector(ToCa(score="random", **TOCA), uniform=uniform)
    some.begin(0)
    some.begin(1)
    assert asked == [(1, range(0, 2)), (2, range(0, 2))] and chosen(some, 1) == [[0, 1, 2]] * 2  # the whole cycle, once


@pytest.mark.parametrize("method", [ToCa(ratio=0.0), ToCa(ratio=1.0), ToCa(ratio=1.0, upstream_exact=True), ToCa(interval=1)])
def test_nothing_is_ranked_where_nothing_is_to_choose(method):
    assert selector(method) is None


def test_a_random_score_needs_draws():
    with pytest.raises(ValueError, match="the score 'random' needs draws"):
        selector(ToCa(score="random", **TOCA))


def test_equals_are_ranked_in_token_order():
    order, mask = ranked_by(torch.tensor([[1.0, 3.0, 3.0, 2.0]]), torch.tensor([True, True, False, False]))
    assert order.tolist() == [[1, 2, 3, 0]] and mask.tolist() == [[False, True, True, False]]


@quick
@given(st.integers(1, 5), st.integers(1, 6), st.floats(0.05, 0.95), st.integers(0, 2**31))
def test_every_row_refreshes_the_planned_number_of_its_best(h, w, ratio, seed):
    method = ToCa(interval=3, ratio=ratio, ratio_schedule="constant")
    some = selector(method, tokens=h * w, grid=(h, w))
    if some:
        some.begin(0)
        mass = torch.rand(2, h * w, generator=torch.Generator().manual_seed(seed))
        for layer in range(2):
            some.observe(layer, mass)
        some.begin(1)
        count = some.counts[1][0]
        assert chosen(some, 0) == [sorted(row.sort(descending=True, stable=True).indices[:count].tolist()) for row in mass]
