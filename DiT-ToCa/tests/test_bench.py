"""`toca bench dit` on the smallest model: what it measures and writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dit import bench
from toca.planning.plan import Plan
from toca.runs.bench import step_groups


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path: Path = tmp_path_factory.mktemp("bench") / "bench.json"
    flags = ["--model", "DiT-mini", "--dtype", "fp32", "bf16", "--image-size", "8", "--num-sampling-steps", "8"]
    bench.main([*flags, "--device", "cpu", "--output", str(path)])
    return json.loads(path.read_text())


def test_every_method_runs_and_the_machine_is_named(report: dict) -> None:
    runs = [(r["dtype"], r["method"]) for r in report["results"]]
    assert runs == [(dtype, method) for dtype in ("fp32", "bf16") for method in bench.METHODS]
    assert report["machine"]["torch"] and report["machine"]["threads"] >= 1 and report["date"]
    assert report["command"] and "commit" in report


def test_speedups_are_ratios_to_the_uncached_run(report: dict) -> None:
    base = None
    for r in report["results"]:
        if r["method"] == "uncached":
            base = r
            continue
        assert r["flops_speedup"] == pytest.approx(base["tflops"] / r["tflops"])
        assert r["time_speedup"] == pytest.approx(base["seconds"] / r["seconds"])


def test_steps_are_grouped_completely(report: dict) -> None:
    for r in report["results"]:
        assert sum(group["count"] for group in r["groups"]) == 8
        assert r["tflops"] * 1e12 == pytest.approx(2 * sum(group["count"] * group["row_flops"] for group in r["groups"]))


def test_the_cache_held_what_was_predicted(report: dict) -> None:
    for r in report["results"]:
        assert r["cache_bytes_held"] == r["cache_bytes_predicted"] > 0


def test_partial_steps_fall_into_tenths_of_the_tokens() -> None:
    from dit.spec import CONFIGS, dit_spec

    plan: Plan = bench.ToCa(4, 0.25, "constant").plan(dit_spec(CONFIGS["DiT-mini"]), 8)
    names = [group["kind"] for group in step_groups(plan, [0.1] * 8)]
    assert "partial, 20-30% of tokens" in names
