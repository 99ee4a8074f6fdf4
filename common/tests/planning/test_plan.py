import subprocess
import sys

import pytest
from toy import attn, mlp, spec, stack

from toca.methods import FORA, DuCa, NoCaching, TaylorSeer, ToCa
from toca.planning.plan import Action, Kind, finish, next_reader
from toca.planning.spec import HIDDEN

LETTERS = {"F": Kind.FULL, "P": Kind.PARTIAL, "R": Kind.REUSE, "T": Kind.FORECAST, "S": Kind.SKIP}
ONE_LAYER = spec(stack(depth=1))


def plan_of(kinds, tokens=4, history=False):
    """A plan whose MLP goes through `kinds`; attention is full where the MLP is, and reused elsewhere."""
    rows = []
    for kind in map(LETTERS.get, kinds):
        other = kind if kind in (Kind.FULL, Kind.SKIP, Kind.FORECAST) else Kind.REUSE
        count = 15 if kind is Kind.FULL else tokens if kind is Kind.PARTIAL else 0
        hidden = Kind.REUSE if kind is Kind.SKIP else Kind.FULL
        rows.append({("blocks", 0, "attn"): Action(other), ("blocks", 0, "mlp"): Action(kind, count), HIDDEN: Action(hidden)})
    return finish(ONE_LAYER, rows, history)


def marks(plan, mark, site=("blocks", 0, "mlp")):
    return "".join("x" if getattr(row[site], mark) else "." for row in plan.steps)


@pytest.mark.parametrize(
    "kinds, kept",
    [
        ("FFF", "..."),  # nobody reads
        ("FPF", "x.."),
        ("FPPFR", "xx.x."),
        ("FSFP", "..x."),  # a skipped branch reads nothing, and the next full step replaces it
        ("FSP", "xx."),  # ... but one that is read later stays
    ],
)
def test_only_what_is_read_again_is_kept(kinds, kept):
    assert marks(plan_of(kinds), "keep") == kept


@pytest.mark.parametrize(
    "events, readers",
    [
        ("wr.r", [1, 3, 3, None]),  # w: replaces, r: reads
        ("wwr", [None, 2, None]),
        ("w..", [None] * 3),
    ],
)
def test_the_next_reader_comes_before_what_replaces(events, readers):
    reads, replaces = [e == "r" for e in events], [e == "w" for e in events]
    assert [next_reader(step, reads, replaces) for step in range(len(events))] == readers


def test_a_forecast_reads_through_later_full_steps():
    assert marks(plan_of("FTFTFF", history=True), "keep") == "xxx..."


def test_the_hidden_state_is_kept_only_before_a_skipped_step():
    assert marks(plan_of("FPSPSPF"), "keep", HIDDEN) == ".x.x..."[:7]


@pytest.mark.parametrize(
    "kinds, tokens, scored",
    [
        ("FPPFP", 4, "x..x."),
        ("FFPFF", 4, ".x..."),  # the score of the first is replaced before anyone reads it
        ("FRRFR", 4, "....."),
        ("FPPFP", 15, "....."),  # all tokens: nothing to choose
        ("FPPFP", 0, "....."),
    ],
)
def test_attention_is_scored_only_if_tokens_are_chosen_by_it(kinds, tokens, scored):
    plan = plan_of(kinds, tokens)
    assert marks(plan, "score", ("blocks", 0, "attn")) == scored
    assert marks(plan, "score") == "....."


def test_kinds_of_steps_and_share_of_tokens():
    plan = plan_of("FPSRF")
    assert plan.kind_counts() == dict(full=2, partial=1, skip=1, reuse=1)
    assert plan.tokens_refreshed() == pytest.approx((15 + 4 + 15) / (5 * 15))
    assert plan.caches and not plan_of("FF").caches
    two_layers = ToCa(interval=2).plan(spec(stack(depth=2)), 4)
    full, partial = two_layers.steps[0], two_layers.steps[1]
    mixed = finish(two_layers.spec, [{site: (full if site[1] == 0 else partial)[site] for site in full}])
    assert mixed.step_kind(0) == "mixed"


def test_a_layer_runs_unless_all_its_branches_are_skipped():
    assert [row["blocks"] for row in plan_of("FPSRF").running] == [{0}, {0}, set(), {0}, {0}]


def test_tokens_are_selected_where_some_are_refreshed_but_not_all():
    (blocks,) = ONE_LAYER.stacks
    found = [plan_of("FPR", tokens).selects(blocks, blocks.branch("mlp")) for tokens in (0, 1, 14, 15)]
    assert found == [False, True, True, False]
    assert not plan_of("FPR").selects(blocks, blocks.branch("attn"))


def test_a_forecast_step_has_its_own_kind():
    assert TaylorSeer(interval=3).plan(ONE_LAYER, 8).kind_counts() == dict(full=4, forecast=4)


@pytest.mark.parametrize("method", [NoCaching(), FORA(), ToCa(), DuCa(), TaylorSeer()], ids=lambda method: method.name)
def test_plans_are_complete_plain_and_repeatable(method):
    model = spec(stack("double", 2), stack("single", 3, (attn(), mlp())))
    plan = method.plan(model, 9)
    assert plan == method.plan(model, 9) and plan.num_steps == 9
    assert all(set(row) == {*model.sites(), HIDDEN} for row in plan.steps)
    assert all(type(action.tokens) is type(action.gap) is int for row in plan.steps for action in row.values())
    assert all(action.kind is Kind.FULL for action in plan.steps[0].values())


def test_planning_needs_no_torch():
    modules = "toca.planning.plan, toca.methods, toca.presets, toca.planning.flops, toca.cli.forks"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
