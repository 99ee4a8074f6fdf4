"""FLOPs printed for FLUX are what we count: to the last printed digit, or a note says what was counted otherwise."""

from __future__ import annotations

import pytest

from toca.cli.forks import load_fork
from toca.cli.table import off, preset_data
from toca.presets import FLUX_DEV, FLUX_SCHNELL, Preset

PRESETS = {"flux-dev": FLUX_DEV, "flux-schnell": FLUX_SCHNELL}
ROUNDED = 2e-5  # of sums whose small steps were rounded further than ours
NAMED = [
    pytest.param(model, name, id=f"{model} {name}") for model, presets in PRESETS.items() for name, p in presets.items() if p.published
]


@pytest.mark.parametrize(("model", "name"), NAMED)
def test_printed_flops(model: str, name: str) -> None:
    fork, preset = load_fork(model), PRESETS[model][name]
    parser = fork.planning_parser()
    parser.set_defaults(**preset.flags)
    run = fork.planned_run(parser.parse_args([]))
    for row in preset_data(name, Preset(preset.flags, preset.published, preset.baseline), run)["published"]:
        difference = off(row)
        assert difference is None or abs(difference) < ROUNDED or row["note"], (row["source"], difference)
        if not row["note"] and "tflops" in row["numbers"] and "speedup" in row["numbers"]:
            assert row["exact"]["speedup"] == pytest.approx(row["numbers"]["speedup"], abs=0.006)
