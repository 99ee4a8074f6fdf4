"""What the public face is given wrongly ends in a TypeError or ValueError of ours that names the argument, before anything runs."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import toy

import toca
from toca.methods import FORA, METHODS, DuCa, Method, NoCaching, Scheduled, TaylorSeer, ToCa
from toca.planning.flops import total_flops, uncached_flops
from toca.planning.memory import predict
from toca.planning.run import PlannedRun
from toca.planning.spec import Branch, Cost, ModelSpec, Stack

HUGE = 10**40
SPEC = toy.spec()
PLAN = ToCa().plan(SPEC, 5)
NO_WHOLE: tuple[Any, ...] = (2.0, math.nan, math.inf, "3", None, True, [3], 3j)  # types
BELOW_ONE: tuple[Any, ...] = (0, -1, -HUGE, HUGE)  # values
NO_NUMBER: tuple[Any, ...] = (math.nan, math.inf, -math.inf, "0.1", None, True, [0.1], 1j)
NO_NAME: tuple[Any, ...] = ("nonsense", "", None, 3, math.nan, ["attention"], {}, True)

Case = tuple[str, Callable[..., Any], str, Any]


def branch(**changes: Any) -> Branch:
    return Branch(**dict(name="mlp", tokens=6, width=4, cost={"matmul": Cost(per_token=8)}, tokenwise=True) | changes)


def stack(**changes: Any) -> Stack:
    return Stack(**dict(name="blocks", depth=2, branches=(branch(),), modulation=(6, 4), layer_cost={"matmul": 5}) | changes)


def spec(**changes: Any) -> ModelSpec:
    return ModelSpec(**dict(name="toy", stacks=(stack(),), forward_cost={"matmul": 5}, hidden=(6, 4)) | changes)


def run(**changes: Any) -> PlannedRun:
    return PlannedRun(**dict(title="toy", spec=SPEC, method=ToCa(), num_steps=5) | changes)


def held(**changes: Any) -> Any:
    return predict(**dict(plan=PLAN, method=ToCa(), rows=2, element_size=4) | changes)


def flops(**changes: Any) -> int:
    return total_flops(**dict(plan=PLAN) | changes)


def cache(**changes: Any) -> Any:
    return toca.Cache(**dict(spec=SPEC, method=ToCa(), num_steps=5) | changes)


def cases(make: Callable[..., Any], argument: str, *values: Any) -> list[Case]:
    return [(make.__name__, make, argument, value) for value in values]


CASES: list[Case] = [
    # methods
    *(case for method in (FORA, ToCa, DuCa, TaylorSeer) for case in cases(method, "interval", *NO_WHOLE, *BELOW_ONE)),
    *cases(ToCa, "bucket", *NO_WHOLE, *BELOW_ONE),
    *cases(ToCa, "ratio", *NO_NUMBER, -0.1, -HUGE),
    *cases(ToCa, "soft_fresh_weight", *NO_NUMBER, -0.1),
    *cases(ToCa, "bonus", *(value for value in NO_NUMBER if value is not None)),
    *cases(ToCa, "score", *NO_NAME),
    *cases(ToCa, "force_fresh", *NO_NAME),
    *cases(ToCa, "ratio_schedule", *(value for value in NO_NAME if not isinstance(value, str))),
    *(case for flag in ("frozen", "upstream_exact") for case in cases(ToCa, flag, 1, 0, "yes", None, math.nan)),
    *(case for method in (TaylorSeer, Scheduled) for case in cases(method, "order", *NO_WHOLE, -1, HUGE)),
    *cases(Scheduled, "full", 3, None, "0,2", (0.0, 2), ("0",), (0, None), (0, True), (), (0, HUGE), (1, 2), (0, -1)),
    *cases(Scheduled, "fill", "output", None, (), (3,), ("nothing",), (None,)),
    # costs and specs
    *(case for part in ("fixed", "per_token", "reuse") for case in cases(Cost, part, *NO_WHOLE, -1)),
    *cases(branch, "name", "", "two words", "_x", "stack", None, 3, ["mlp"]),
    *(case for size in ("tokens", "width", "interval_scale") for case in cases(branch, size, *NO_WHOLE, *BELOW_ONE)),
    *cases(branch, "interval", *(value for value in NO_WHOLE if value is not None), *BELOW_ONE),
    *cases(branch, "cost", None, 3, [Cost()], {"matmul": 3}, {3: Cost()}, {"matmul": None}),
    *cases(branch, "tokenwise", 1, None, "yes"),
    *(case for chunks in ("inputs", "gate") for case in cases(branch, chunks, 3, None, "12", (1.0,), (None,), (-1,))),
    *cases(branch, "grid", 3, (2,), (2, 3, 1), (2, 0), (2.0, 3), (4, 2), "23"),
    *cases(branch, "scored_from", *NO_WHOLE, -1),
    *(case for other in ("scored_by", "entropy_by", "feeds") for case in cases(branch, other, 3, True, ["attn"])),
    *cases(stack, "name", None, 3),
    *cases(stack, "depth", *NO_WHOLE, *BELOW_ONE),
    *cases(stack, "branches", None, (), branch(), ("mlp",), (branch(), branch()), (branch(scored_by="attn"),), (branch(inputs=(6,)),)),
    *cases(stack, "modulation", None, 6, (6,), (6, 4, 2), (6.0, 4), (-1, 4)),
    *(case for cost in ("layer_cost", "norm_cost") for case in cases(stack, cost, None, 3, {"matmul": 1.5}, {"matmul": -1}, {3: 3})),
    *cases(stack, "once", *NO_WHOLE, -1),
    *cases(spec, "name", None, 3),
    *cases(spec, "stacks", None, (), stack(), ("blocks",), (stack(), stack())),
    *(case for cost in ("forward_cost", "run_cost") for case in cases(spec, cost, None, 3, {"matmul": 1.5}, {"matmul": -1})),
    *cases(spec, "hidden", None, 6, (6,), (0, 4), (6.0, 4), ("6", 4)),
    *cases(spec, "once", None, 6, (6,), (-1, 4), (6.0, 4)),
    *cases(spec, "cycles", None, {"toca": 3}, [3]),
    *cases(spec, "spatial", None, {"toca": 3}),
    *cases(spec, "ratio_schedules", None, {"mine": 3}),
    *cases(spec, "coupled_rows", *NO_WHOLE, *BELOW_ONE),
    *(case for flag in ("counts_down", "skip_odd") for case in cases(spec, flag, 1, None, "no")),
    *cases(spec, "published", None, {}),
    *cases(spec, "uncoupled", None, 3),
    # runs, FLOPs, memory
    *cases(run, "title", None, 3),
    *(case for make in (run, cache) for case in cases(make, "spec", None, "dit", ModelSpec, 3)),
    *(case for make in (run, cache) for case in cases(make, "num_steps", *NO_WHOLE, *BELOW_ONE, 10**9)),
    *(case for make in (run, cache, held) for case in cases(make, "method", None, "toca", ToCa, 3)),
    *cases(run, "rows_per_image", *NO_WHOLE, *BELOW_ONE),
    *(case for make in (held, flops) for case in cases(make, "plan", None, "plan", SPEC, 3)),
    *(case for make in (held, flops) for case in cases(make, "rows", *NO_WHOLE, *BELOW_ONE)),
    *cases(held, "element_size", *NO_WHOLE, *BELOW_ONE),
    *(case for make in (held, cache) for budget in ("modulation_budget", "once_budget") for case in cases(make, budget, *NO_WHOLE, -1)),
    *cases(flops, "counter", *NO_NAME),
    # the cache
    *cases(cache, "seeds", 3, "12", (1.0,), (None,), (True,), (HUGE,), (math.nan,), {1}),
    *cases(cache, "uniform", 3, "draw", (1,)),
    *cases(cache, "shards", None, 2, "two"),
]
SAYS = {"branches": "branch", "inputs": "inputs|chunk", "stacks": "stack", "full": "full", "fill": "fill", "name": "name|branch"}


def test_there_are_many() -> None:
    assert len(CASES) > 400


@pytest.mark.parametrize(
    ("made", "make", "argument", "value"), CASES, ids=[f"{c[0]}-{c[2]}-{str(c[3])[:20]}-{i}" for i, c in enumerate(CASES)]
)
def test_one_wrong_argument(made: str, make: Callable[..., Any], argument: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError)) as error:
        make(**{argument: value})
    text = str(error.value)
    assert re.search(SAYS.get(argument, argument), text), text
    assert "\n" not in text and len(text) < 400 and "__init__" not in text
    frames = [entry.path for entry in error.traceback]
    assert "planning" in str(frames[-1]) or "methods" in str(frames[-1])  # we raised it, not something that met it later


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("steps", [*NO_WHOLE, *BELOW_ONE, 10**9], ids=str)
def test_wrong_numbers_of_steps(name: str, steps: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="num_steps must be"):
        METHODS[name]().plan(SPEC, steps)


@pytest.mark.parametrize("name", METHODS)
def test_no_spec(name: str) -> None:
    with pytest.raises(TypeError, match="spec must be a ModelSpec, got"):
        METHODS[name]().plan("DiT-XL/2", 5)


def test_names_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="unknown stack of toy 'more': choose from"):
        SPEC.stack("more")
    with pytest.raises(ValueError, match=r"unknown branch of stack '\w+' 'more': choose from attn, mlp"):
        SPEC.stacks[0].branch("more")
    with pytest.raises(ValueError, match="unknown ratio schedule 'more'"):
        ToCa(ratio_schedule="more").plan(SPEC, 5)
    with pytest.raises(TypeError, match="plan must be a Plan"):
        uncached_flops("plan")


@pytest.mark.parametrize("method", (None, 3, "mine", ToCa(), dict, type("Nameless", (Method,), {})), ids=repr)
def test_what_is_no_method_is_not_registered(method: Any) -> None:
    with pytest.raises(TypeError, match="a method is a class derived from Method with a name"):
        toca.register(method)


def test_a_class_in_place_of_a_method_is_told_to_be_called() -> None:
    with pytest.raises(TypeError, match="method must be a Method, got the class ToCa: call it"):
        run(method=ToCa)


def test_numbers_of_other_libraries_are_numbers() -> None:
    import numpy as np

    assert ToCa(interval=np.int64(3), ratio=np.float32(0.5)).plan(SPEC, np.int32(5)).num_steps == 5
    assert ToCa(ratio=1, bonus=0, soft_fresh_weight=0).plan(SPEC, 5) and NoCaching().plan(SPEC, 1)
