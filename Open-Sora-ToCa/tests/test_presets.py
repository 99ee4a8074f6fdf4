"""FLOPs printed for Open-Sora are what we count, to 0.04%, or a note says what was counted otherwise."""

from __future__ import annotations

import pytest

from toca.cli.forks import load_fork
from toca.cli.table import off, preset_data
from toca.presets import OPENSORA, parse_with_preset


@pytest.mark.parametrize("name", [name for name, preset in OPENSORA.items() if preset.published])
def test_printed_flops(name: str) -> None:
    fork = load_fork("opensora")
    run = fork.planned_run(parse_with_preset(fork.planning_parser(), OPENSORA, ["--preset", name]))
    for row in preset_data(name, OPENSORA[name], run)["published"]:
        assert abs(off(row) or 0) < 4e-4 or row["note"], row["source"]
        if "speedup" in row["numbers"]:
            assert row["exact"]["speedup"] == pytest.approx(row["numbers"]["speedup"], abs=0.02)
