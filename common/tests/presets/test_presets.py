"""Printed FLOPs of every row against ours are tested in the forks; here: names, rows, and how a preset's flags are taken."""

from __future__ import annotations

import argparse

import pytest

from toca.presets import DIT, FLUX_DEV, FLUX_OTHERS, OPENSORA, PIXART, Preset, parse_with_preset

NUMBERS = {"tflops", "speedup", "fid50k", "sfid", "inception_score", "precision", "image_reward", "geneval", "fid30k", "clip"}
NUMBERS |= {"latency_speedup"}
PRESETS = {"dit": DIT, "pixart": PIXART, "opensora": OPENSORA, "flux-dev": FLUX_DEV, "flux-schnell": FLUX_OTHERS}
EVERY = [pytest.param(preset, id=f"{model} {name}") for model, presets in PRESETS.items() for name, preset in presets.items()]
PRINTED = [pytest.param(*every.values, id=every.id) for every in EVERY if every.id.split()[0] in ("dit", "pixart", "flux-dev")]


@pytest.mark.parametrize("preset", PRINTED)
def test_rows_say_what_was_printed_and_where(preset: Preset) -> None:
    assert preset.published
    for row in preset.published:
        assert row.source and row.numbers
        assert row.numbers.keys() <= NUMBERS
        assert all(value > 0 for value in row.numbers.values())


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
