"""tables.json: kinds and cycle lengths of many settings, refreshed tokens per schedule, TaylorSeer's full steps, FLOPs."""

from __future__ import annotations

from typing import Any

import pytest
from golden_data import read_json

from dit.spec import CONFIGS, DiTConfig, dit_spec
from toca.methods import METHODS, Method, TaylorSeer
from toca.planning.flops import total_flops
from toca.planning.plan import Kind
from toca.planning.schedule import At, f32, refreshed_tokens
from toca.planning.spec import HIDDEN

DDIM = dit_spec(DiTConfig(28, 32, 4, 2, input_size=16))
NAMES = {Kind.FULL: "full", Kind.PARTIAL: "ToCa", Kind.REUSE: "ToCa", Kind.SKIP: "aggressive"}


def check_tables(file: str) -> None:
    tables = read_json(file)
    columns = tables.pop("ratios_columns")
    for name, rows in tables.items():
        assert name in ROWS, f"a table this runner does not know: {name}"
        for row in rows:
            ROWS[name](dict(zip(columns, row, strict=True)) if name == "ratios" else dict(row))


def check_kinds(row: dict[str, Any]) -> None:
    """Kinds of layer 0 and of the others, and the cycle length that every step leaves."""
    steps, interval, ratio = row["num_steps"], row["fresh_threshold"], row["fresh_ratio"]
    assert row["step"] == list(range(steps))[::-1]
    method = METHODS[row["variant"]](interval=interval, ratio=ratio, ratio_schedule="constant", upstream_exact=True)
    plan = method.plan(DDIM, steps)
    for layers, expected in ((range(1), row["layer0"]), (range(1, 28), row["other_layers"])):
        for layer in layers:
            assert [NAMES[step["blocks", layer, "mlp"].kind] for step in plan.steps] == expected, (method, layer)
    last = [step["blocks", 27, "mlp"].kind for step in plan.steps]
    assert [step[HIDDEN].kind is Kind.REUSE for step in plan.steps] == [kind is Kind.SKIP for kind in last]
    full = [all(action.kind is Kind.FULL for action in step.values()) for step in plan.steps]
    assert [i for i, whole in zip(row["step"], full, strict=True) if whole] == row["full_all_layers"]
    mixed = [kind == "full" and not whole for kind, whole in zip(row["layer0"], full, strict=True)]
    assert [i for i, some in zip(row["step"], mixed, strict=True) if some] == row["layer0_only_full"]
    cycle, length, lengths = DDIM.cycles["fora" if ratio == 0 else row["variant"]], interval, []
    for i, kind in zip(row["step"], row["layer0"], strict=True):
        length = cycle.length(interval, i, steps) if kind == "full" else length
        lengths.append(length)
    assert lengths == row["threshold_after"]


def check_ratio(row: dict[str, Any]) -> None:
    """The share a schedule asks for, and the tokens that makes of grids of several sizes."""
    interval = row["fresh_threshold"]
    at = At(row["step"] / row["num_steps"], row["layer"] / 27, (row["step"] % interval) / interval, "mlp")
    ratio = row["fresh_ratio"] * DDIM.ratio_schedule(row["schedule"])(at)
    assert ratio == pytest.approx(row["raw_ratio"], abs=1e-12), row
    assert f32(min(max(ratio, 0.0), 1.0)) == row["clamped_float32"], row
    for column in (name for name in row if name.startswith("topk_")):
        assert refreshed_tokens(ratio, int(column.removeprefix("topk_"))) == row[column], row


def check_taylorseer(row: dict[str, Any]) -> None:
    plan = TaylorSeer(interval=row["interval"]).plan(DDIM, row["num_steps"])
    kinds = {step: {action.kind for site, action in sites.items() if site != HIDDEN} for step, sites in enumerate(plan.steps)}
    assert [row["num_steps"] - 1 - step for step, kind in kinds.items() if kind == {Kind.FULL}] == row["full"]


def check_flops(row: dict[str, Any]) -> None:
    """Both counters at full size; a whole number of FLOPs is compared."""
    spec = dit_spec(CONFIGS[row.pop("model")].replace(input_size=row.pop("image_size") // 8))
    rows = row.pop("batch") * (2 if row.pop("cfg") else 1)
    published = {name: row.pop(f"{column}_tflops", None) for name, column in (("upstream", "upstream_counter"), ("matmul", "matmul"))}
    plan = method_of(row).plan(spec, row.pop("num_steps"))
    full_steps = row.pop("full_steps", None)
    assert full_steps in (None, plan.kind_counts()["full"])
    assert not row, f"settings this runner does not know: {row}"
    for counter, tflops in published.items():
        assert tflops is None or total_flops(plan, counter, rows) == round(tflops * 1e12), (plan.spec, counter)


def method_of(row: dict[str, Any]) -> Method:
    variant = row.pop("variant")
    if variant == "uncached":
        return METHODS["none"]()
    if variant == "taylorseer":
        return TaylorSeer(interval=row.pop("interval"))
    settings = dict(interval=row.pop("fresh_threshold"), ratio=row.pop("fresh_ratio"), ratio_schedule=row.pop("ratio_scheduler"))
    return METHODS[variant](upstream_exact=True, **settings)


ROWS = {"kinds": check_kinds, "ratios": check_ratio, "taylorseer": check_taylorseer, "flops": check_flops}
