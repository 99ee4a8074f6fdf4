"""Printed FLOPs of every row against ours are tested in the forks; here: names, rows, and how a preset's flags are taken."""

from __future__ import annotations

import argparse

import pytest

from toca.presets import (
    DIT,
    FLUX_DEV,
    FLUX_OTHERS,
    FLUX_SCHNELL,
    NUMBERS,
    OPENSORA,
    PIXART,
    PRINTED,
    Preset,
    Published,
    parse_with_preset,
)

PRESETS = {"dit": DIT, "pixart": PIXART, "opensora": OPENSORA, "flux-dev": FLUX_DEV, "flux-schnell": FLUX_SCHNELL, "flux": FLUX_OTHERS}
EVERY = [pytest.param(preset, id=f"{model} {name}") for model, presets in PRESETS.items() for name, preset in presets.items()]
WITH_ROWS = [pytest.param(*every.values, id=every.id) for every in EVERY if every.id.split()[0] in ("dit", "pixart", "flux-dev")]


def check(row: Published) -> None:
    assert row.source and row.numbers
    assert row.numbers.keys() <= NUMBERS.keys()
    assert all(value > 0 for value in row.numbers.values())


@pytest.mark.parametrize("preset", WITH_ROWS)
def test_rows_say_what_was_printed_and_where(preset: Preset) -> None:
    assert preset.published
    for row in preset.published:
        check(row)


def test_rows_of_other_methods_are_numbers_alone() -> None:
    for model, methods in PRINTED.items():
        assert not methods.keys() & PRESETS[model].keys()
        for rows in methods.values():
            assert rows
            for row in rows:
                check(row)


def test_printed_speedups_are_over_the_baseline_that_a_preset_names() -> None:
    """Of presets that only take fewer steps, but for one that contradicts its own FLOPs."""
    for name, preset in [*FLUX_DEV.items(), *FLUX_SCHNELL.items(), *OPENSORA.items(), *PIXART.items()]:
        steps = next((preset.flags[flag] for flag in ("num_steps", "num_sampling_steps", "step") if flag in preset.flags), None)
        if preset.flags["method"] == "none" and steps and preset.baseline:
            for row in preset.published:
                if "contradicts" not in row.note and "speedup" in row.numbers:
                    assert row.numbers["speedup"] == pytest.approx(preset.baseline / steps, abs=0.006), name


def test_scales_that_do_not_compare_have_their_own_columns() -> None:
    """CLIP of about 16 to 20 and of about 30 to 33; ImageReward on two sets of prompts."""
    for preset in FLUX_DEV.values():
        for row in preset.published:
            assert row.numbers.get("clip", 32) > 30 and row.numbers.get("clip_other", 18) < 20
            assert not {"image_reward", "image_reward_parti"} <= row.numbers.keys()


def test_no_two_presets_are_one_setting() -> None:
    for presets in PRESETS.values():
        flags = [sorted(preset.flags.items()) for preset in presets.values()]
        assert all(flags.count(some) == 1 for some in flags)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--preset", choices=("a", "b"), default=None)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--method", default="none")
    return parser


@pytest.mark.parametrize(
    ("argv", "steps", "method"),
    (
        ([], 1, "none"),
        (["--preset", "a"], 50, "toca"),
        (["--preset", "a", "--steps", "20"], 20, "toca"),
        (["--steps", "20", "--preset", "a"], 20, "toca"),
        (["--preset", "b"], 1, "fora"),
        (["--preset", "a", "--preset", "b"], 1, "fora"),
    ),
)
def test_given_flags_win_over_a_presets(argv: list[str], steps: int, method: str) -> None:
    presets = {"a": Preset(dict(steps=50, method="toca"), ()), "b": Preset(dict(method="fora"), ())}
    args = parse_with_preset(parser(), presets, argv)
    assert (args.steps, args.method) == (steps, method)


def test_an_unknown_preset_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_with_preset(parser(), {}, ["--preset", "c"])
    assert "invalid choice: 'c'" in capsys.readouterr().err
