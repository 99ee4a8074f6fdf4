"""`toca bench flux` at a small size: what it measures and writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tiny_parts import TINY_FLUX

from flux import bench as flux_bench
from toca.planning.flops import step_flops


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path: Path = tmp_path_factory.mktemp("bench") / "bench.json"
    flags = ["--blocks", "2", "3", "--width", "96", "--height", "64", "--txt_tokens", "9", "--steps", "8", "--output", str(path)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(flux_bench.CONFIGS, "flux-dev", TINY_FLUX)
        patch.setattr(flux_bench, "PLAIN", {"steps28": 5, "steps20": 4})
        flux_bench.main([*flags, "--device", "cpu", "--dtype", "fp32", "--warm_up", "--runs", *flux_bench.METHODS, *flux_bench.PLAIN])
    return json.loads(path.read_text())


def test_all_runs_and_the_machine_are_there(report: dict) -> None:
    assert [r["method"] for r in report["results"]] == [*flux_bench.METHODS, "steps28", "steps20"]
    assert report["machine"]["torch"] and report["date"]
    assert [sum(r["steps"].values()) for r in report["results"]] == [8] * 6 + [5, 4]


def test_the_cache_held_what_was_predicted(report: dict) -> None:
    for r in report["results"]:
        assert r["cache_bytes_held"] == r["cache_bytes_predicted"] == sum(r["cache_parts"].values()) > 0
    parts = {r["method"]: r["cache_parts"] for r in report["results"]}
    assert parts["none"]["outputs"] == 0 < parts["fora3"]["outputs"] < parts["toca4-01"]["outputs"]
    assert parts["none"]["once"] > 0 and parts["none"]["modulation"] > 0


def test_speedups_are_ratios_to_the_uncached_run(report: dict) -> None:
    base, *others = report["results"]
    for r in others:
        assert r["flops_speedup"] == pytest.approx(base["tflops"] / r["tflops"])
        assert r["time_speedup"] == pytest.approx(base["seconds"] / r["seconds"])
    assert {r["method"]: r["flops_speedup"] for r in others}["steps20"] == pytest.approx(2, rel=0.01)  # what is computed once, too


def test_blocks_are_timed_apart(report: dict) -> None:
    (toca,) = (r for r in report["results"] if r["method"] == "toca4-01")
    assert [row["stack"] for row in toca["by_block"]] == ["double_blocks"] * 8 + ["single_blocks"] * 8
    assert [row["kind"] for row in toca["by_block"][:5]] == ["full", "full", "full", "partial", "partial"]
    assert all(row["seconds"] > 0 for row in toca["by_block"])
    spec = flux_bench.flux_spec(TINY_FLUX, 24, 9)
    row = flux_bench.METHODS["toca4-01"].plan(spec, 8).steps[3]
    both = sum(some["flops"] for some in toca["by_block"] if some["step"] == 3)
    assert both == step_flops(spec, row) - spec.forward_cost["matmul"]
    assert toca["by_block"][3]["flops_share"] == pytest.approx(toca["by_block"][3]["flops"] / toca["by_block"][0]["flops"])


@pytest.mark.parametrize("flags", [["--steps", "0"], ["--width", "8"], ["--blocks", "0", "1"]])
def test_a_wrong_flag_is_one_line(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        flux_bench.main([*flags, "--device", "cpu", "--output", str(tmp_path / "bench.json")])
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(rf"error: argument {flags[0]}: must be a whole number of \d+ to \d+", line)
    assert not list(tmp_path.iterdir())
