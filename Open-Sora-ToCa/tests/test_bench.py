"""The benchmark on a narrow model: what it measures is whole, counted and written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opensora import bench
from opensora.spec import CONFIGS, STDiT3Config
from toca.methods import ToCa

NARROW = STDiT3Config(hidden_size=32, num_heads=2, caption_channels=12)
SIZE = ["--image-size", "48", "80", "--num-frames", "17", "--text-tokens", "4", "--device", "cpu"]


def run(monkeypatch: pytest.MonkeyPatch, path: Path, *argv: str) -> list[dict]:
    monkeypatch.setitem(CONFIGS, "STDiT3-XL/2", NARROW)
    bench.main([*SIZE, "--output", str(path), *argv])
    return json.loads(path.read_text())["results"]


def test_part_of_a_run_stands_for_the_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = run(monkeypatch, tmp_path / "part.json")
    assert [result["method"] for result in results] == [*bench.METHODS, "uncached, 15 steps"]
    uncached, toca = results[:2]
    assert (uncached["timed_steps"], toca["timed_steps"], toca["depth"]) == (2, 6, 2)
    assert toca["steps"] == dict(full=7, mixed=5, partial=18)  # of the whole run
    assert sum(group["count"] for group in toca["groups"]) == 6
    assert toca["cache_bytes_held"] == toca["cache_bytes_predicted"] and toca["published_cache_bytes"] > 0
    assert toca["seconds"] > sum(group["seconds"] * group["count"] for group in toca["groups"]) / 2
    assert uncached["published_cache_bytes"] == 0 and set(uncached["operations"]) == {"full", "partial"}
    for seconds in uncached["operations"].values():
        assert seconds["matrix products"] > 0 and seconds["element-wise"] > 0 and seconds["norms"] > 0
    assert "partial step of ToCa R=85%" in capsys.readouterr().out


def test_whole_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    argv = ["--num-sampling-steps", "8", "--stop-after", "8", "--methods", "DuCa", "--depth", "1", "--batch", "2"]
    _, duca, half = run(monkeypatch, tmp_path / "whole.json", *argv)
    assert duca["timed_steps"] == 8 and duca["steps"] == dict(full=4, mixed=1, partial=2, skip=1) and half["timed_steps"] == 4
    assert duca["flops_speedup"] > 1 and half["flops_speedup"] == pytest.approx(2)


def test_steps_that_were_not_run_count_as_their_kind() -> None:
    plan = ToCa(3, 0.1).plan(bench.opensora_spec(NARROW, (5, 6, 10), 4), 9)
    assert [plan.step_kind(step) for step in range(9)] == ["full"] * 3 + ["mixed"] + ["partial"] * 2 + ["full"] + ["partial"] * 2
    assert bench.projected(plan, [9.0, 4.0, 5.0, 3.0, 1.0, 2.0]) == 24 + 5 + 1.5 + 1.5
