"""The printed FLOPs and speed-ups of DiT's published rows are what the published code's counter gives for our plans of its steps."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from dit.flags import parse, planned_run, planning_parser
from toca.cli.table import preset_data
from toca.presets import DIT, Published

EXACT_DIGITS = {"toca4-ddpm250": 43420574210048, "toca1-ddpm250": 103549585270784, "toca3-ddim50": 10232809588736}
UNEXPLAINED = {  # rows that contradict their own settings, or state none
    ("taylorseer-n5-o3-ddim50", 5.725),  # 12 full steps are printed for an interval that gives 11
    ("ddim15", 6.66),  # 14 steps
    ("taylorseer-n3-o3-ddim50", 2.54),  # GeoRK2's own baseline
    ("taylorseer-n5-o3-ddim50", 4.146),
    ("duca4-ddpm250", 2.73),  # settings not stated
}
ROWS = [pytest.param(name, row, id=f"{name}-{place}") for name, preset in DIT.items() for place, row in enumerate(preset.published)]


@cache
def exact(name: str) -> dict[str, Any]:
    return preset_data(name, DIT[name], planned_run(parse(planning_parser(), ["--preset", name])))["exact"]


@pytest.mark.parametrize(("name", "row"), ROWS)
def test_printed_flops(name: str, row: Published) -> None:
    for key, ours in (("tflops", exact(name)["flops"] / 1e12), ("speedup", exact(name)["speedup"])):
        printed = row.numbers.get(key)
        if printed is not None and (name, printed) not in UNEXPLAINED:
            assert ours == pytest.approx(printed, rel=0.01), key


@pytest.mark.parametrize("name", EXACT_DIGITS)
def test_exact_flops(name: str) -> None:
    assert exact(name)["flops"] == EXACT_DIGITS[name]
