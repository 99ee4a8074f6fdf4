"""`toca bench pixart` on a small model: what it measures and writes, and the published code's memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pixart import bench
from pixart.spec import CONFIGS, PixArtConfig


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict:
    path: Path = tmp_path_factory.mktemp("bench") / "bench.json"
    small = PixArtConfig(input_size=8, hidden_size=24, depth=2, num_heads=2, caption_channels=16, model_max_length=9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench, "CONFIGS", {256: small, 1024: small.replace(micro_conditions=True)})
        flags = ["--image_size", "256", "1024", "--batch", "1", "3", "--step", "8", "--text_tokens", "6", "--device", "cpu"]
        bench.main([*flags, "--output", str(path)])
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_method_runs_and_half_the_steps_uncached(report: dict) -> None:
    runs = [(r["image_size"], r["batch"], r["method"]) for r in report["results"]]
    names = [*bench.METHODS, "uncached, 4 steps"]
    assert runs == [(pixels, batch, name) for pixels in (256, 1024) for batch in (1, 3) for name in names]
    assert [sum(r["steps"].values()) for r in report["results"]] == ([8] * len(bench.METHODS) + [4]) * 4


def test_the_cache_held_what_was_predicted(report: dict) -> None:
    for r in report["results"]:
        assert r["cache_bytes_held"] == r["cache_bytes_predicted"] > 0
        assert sum(group["count"] for group in r["groups"]) == sum(r["steps"].values())


def test_only_methods_that_rate_tokens_spend_time_on_it(report: dict) -> None:
    for r in report["results"]:
        rates = r["method"].startswith(("ToCa", "DuCa"))
        assert (r["rating_share_of_full_steps"] > 0) == rates == all(r["rating_seconds"][name] > 0 for name in ("scoring", "noting"))
    assert bench.Selector.begin.__qualname__ == "Selector.begin"  # timed no longer


def test_the_published_codes_memory() -> None:
    """The README's batch of 100 in float16 with 24 and 120 text tokens."""
    gigabytes = {length: bench.upstream_bytes(CONFIGS[256], 200, length, 2) for length in (24, 120)}
    for length, cross, running in ((24, 13.8, 7.9), (120, 68.8, 39.3)):
        found = {name: round(value / 1e9, 2) for name, value in gigabytes[length].items()}
        assert found["outputs"] == 9.91 and found["self_maps"] == 0.73
        assert round(found["cross_maps"], 1) == cross and round(found["running_map"], 1) == running
