"""VBench and GenEval: summaries of what their scorers wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toca.metrics import geneval, vbench

ENDS = {name: (at.low, at.high) for name, at in vbench.DIMENSIONS.items()}


def test_vbench_ends_and_middle() -> None:
    assert vbench.summary({name: high for name, (_, high) in ENDS.items()}).total == pytest.approx(1)
    assert vbench.summary({name: low for name, (low, _) in ENDS.items()}).total == pytest.approx(0)
    still = vbench.summary({name: low if name == "dynamic_degree" else high for name, (low, high) in ENDS.items()})
    assert still.quality == pytest.approx(6 / 6.5)  # half the weight of the others
    assert still.semantic == pytest.approx(1)
    assert still.total == pytest.approx((4 * 6 / 6.5 + 1) / 5)


def test_vbench_totals_that_were_printed() -> None:
    """Open-Sora 1.2's README: quality 80.71%, semantic 73.30%, total 79.23%."""
    share = {name: 0.8071 if at.quality else 0.7330 for name, at in vbench.DIMENSIONS.items()}
    printed = vbench.summary({name: low + share[name] * (high - low) for name, (low, high) in ENDS.items()})
    assert [round(100 * x, 2) for x in (printed.quality, printed.semantic, printed.total)] == [80.71, 73.30, 79.23]


def test_vbench_files(tmp_path: Path) -> None:
    for name, (_, high) in ENDS.items():
        (tmp_path / f"{name}_eval_results.json").write_text(json.dumps({name: [high, [{"video_path": "a.mp4"}]]}))
    (tmp_path / "imaging_quality_eval_results.json").write_text(json.dumps({"imaging_quality": [65.0, []]}))
    raw = vbench.collect(tmp_path)
    assert raw["imaging_quality"] == 0.65 and raw["scene"] == 0.8222
    (tmp_path / "scene_eval_results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"scene_eval_results.json is no result of VBench's scorer: it lacks 'scene'"):
        vbench.collect(tmp_path)
    (tmp_path / "color_eval_results.json").unlink()
    with pytest.raises(ValueError, match=r"lacks color_eval_results.json"):
        vbench.collect(tmp_path)


def test_vbench_needs_all_dimensions_and_numbers() -> None:
    with pytest.raises(ValueError, match=r"missing: .*'scene'.*unknown: \['beauty'\]"):
        vbench.summary({"beauty": 1.0})
    with pytest.raises(ValueError, match="scene is nan"):
        vbench.summary({name: float("nan") if name == "scene" else 0.5 for name in ENDS})


def line(tag: str, prompt: str, correct: bool) -> dict[str, object]:
    return dict(tag=tag, prompt=prompt, correct=correct, filename="00000/samples/00000.png")


def test_geneval_is_the_mean_over_tasks_not_over_pictures() -> None:
    results = [line("counting", "two", True), line("counting", "two", False), *[line("colors", f"c{i}", True) for i in range(8)]]
    summary = geneval.summary(results)
    assert list(summary.tasks) == ["counting", "colors"]
    assert summary.overall == pytest.approx((0.5 + 1) / 2)
    assert summary.tasks["counting"] == geneval.Task(images=2, correct=1, prompts=1, solved=1)


def test_geneval_files(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(line("colors", "a", True)) + "\n\n{")
    with pytest.raises(ValueError, match=r"results.jsonl, line 2 is no JSON"):
        geneval.read_results(path)
    with pytest.raises(ValueError, match="result 1 is none of GenEval's"):
        geneval.summary([{"tag": "colors", "prompt": "a", "correct": "yes"}])
    with pytest.raises(ValueError, match="no results"):
        geneval.summary([])


@given(st.integers(1, 10_000), st.data())
def test_wilson_holds_the_share(trials: int, data: st.DataObject) -> None:
    successes = data.draw(st.integers(0, trials))
    low, high = geneval.wilson(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12 and successes / trials <= high + 1e-12 and high <= 1
    assert high - low < 4 / trials**0.5


def test_a_known_wilson_interval() -> None:
    low, high = geneval.wilson(35, 40)  # Wilson (1927) by hand: 0.739, 0.945
    assert (round(low, 3), round(high, 3)) == (0.739, 0.945)
