"""Replay the reference runs, wherever `golden_data.find_folder` finds them: sampling cases, probes, scores, tables, a training step."""

from __future__ import annotations

import pytest
from golden_data import CASES, CONFIGS, GOLDEN, INDEX, KIND_CODES, NOTES, SETTINGS
from golden_files import CHECKS
from golden_sampling import check_case

INDEXED = {"README.md", "cases.json", "config.json"}


def test_nothing_in_the_folder_is_unknown() -> None:
    listed = {case["file"] for case in INDEX["cases"]} | {config["file"] for config in CONFIGS.values()}
    found = {path.name for path in GOLDEN.iterdir()}
    assert listed <= found, f"missing: {listed - found}"
    assert found <= listed | INDEXED | set(CHECKS), f"files this runner does not know: {found - listed - INDEXED - set(CHECKS)}"
    assert INDEX.keys() <= {"cases", "kind_codes"} and INDEX.get("kind_codes", KIND_CODES) == KIND_CODES
    assert CASES and len(CASES) == len(INDEX["cases"]), "no cases, or two of one name"


@pytest.mark.parametrize("name", CASES)
def test_sampling_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    known = SETTINGS | NOTES | {"upstream_flops_counter"}
    assert SETTINGS <= set(case) <= known, f"fields this runner does not know: {set(case) - known}; it misses {SETTINGS - set(case)}"
    check_case(case, monkeypatch)


@pytest.mark.parametrize("name", CHECKS)
def test_file(name: str) -> None:
    if not (GOLDEN / name).exists():
        pytest.skip(f"{GOLDEN} has no {name}")
    CHECKS[name](name)
