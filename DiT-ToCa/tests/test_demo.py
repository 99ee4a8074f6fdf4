"""The demonstration on a random DiT: what it compares, prints and draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from tiny import MINI8, save_dit

import demo
from dit.demo import METHODS, REFERENCE
from dit.spec import dit_spec
from toca.methods import ToCa
from toca.planning.flops import total_flops, uncached_flops

MINI16 = MINI8.replace(input_size=16)  # the smallest pictures that the judge reads


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict], Path]:
    folder = tmp_path_factory.mktemp("demo")
    picture, table = folder / "demo.png", folder / "demo.json"
    flags = ["--ckpt", save_dit(folder / "dit.safetensors", MINI16), "--image-size", "16", "--num-sampling-steps", "12", "--images", "3"]
    demo.main([*flags, "--batch", "2", "--output", str(picture), "--json", str(table)])
    return json.loads(table.read_text()), picture


def test_every_method_is_compared_with_the_uncached_images(outcome: tuple[list[dict], Path]) -> None:
    results, _ = outcome
    assert [r["name"] for r in results[: len(METHODS)]] == list(METHODS)
    first, *others = results
    assert first["steps"] == {"full": 12} and first["psnr"] is None and first["flops_speedup"] == 1
    assert all(r["psnr"] > 0 and 0 <= r["judged"] <= 1 for r in others)


def test_speedups_are_ratios_to_the_uncached_run(outcome: tuple[list[dict], Path]) -> None:
    results, _ = outcome
    toca = next(r for r in results if r["name"] == REFERENCE)
    assert toca["time_speedup"] == pytest.approx(results[0]["seconds"] / toca["seconds"])
    plan = ToCa(interval=3, ratio=0.07).plan(dit_spec(MINI16, "ddim"), 12)
    assert toca["flops_speedup"] == pytest.approx(uncached_flops(plan) / total_flops(plan))
    assert toca["tokens_refreshed"] == pytest.approx(plan.tokens_refreshed())


def test_plain_runs_get_the_flops_and_the_time_of_the_reference(outcome: tuple[list[dict], Path]) -> None:
    results, _ = outcome
    toca = next(r for r in results if r["name"] == REFERENCE)
    same_time, same_flops = results[-2:]
    assert same_time["steps"]["full"] == max(2, round(12 / toca["time_speedup"]))
    assert same_flops["steps"]["full"] == max(2, round(12 / toca["flops_speedup"]))


def test_the_picture_has_a_row_per_method(outcome: tuple[list[dict], Path]) -> None:
    results, path = outcome
    with Image.open(path) as picture:
        width, height = picture.size
    assert height > 80 * len(results) and width > 300
