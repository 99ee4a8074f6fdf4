"""Replay the reference runs, wherever `toca.testing.golden.find` finds them: sampling cases and unit files."""

from __future__ import annotations

import pytest
from golden_data import CASES, CONFIGS, FILES, GOLDEN, NOTES, SETTINGS
from golden_files import CHECKS as FILE_CHECKS
from golden_sampling import check_case
from golden_tables import CHECKS as TABLE_CHECKS

CHECKS = FILE_CHECKS | TABLE_CHECKS


def test_nothing_in_the_folder_is_unknown() -> None:
    listed = {f"{name}.safetensors" for name in CASES} | set(CONFIGS)
    found = {path.name for path in GOLDEN.iterdir()}
    assert CASES and listed <= found, f"missing: {listed - found}"
    unknown = found - listed - FILES - set(CHECKS)
    assert not unknown, f"files this runner does not know: {unknown}"


@pytest.mark.parametrize("name", CASES)
def test_sampling_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert SETTINGS <= set(case) <= SETTINGS | NOTES, f"fields this runner does not know: {set(case) ^ SETTINGS - NOTES}"
    check_case(case | dict(file=f"{name}.safetensors"), monkeypatch)


@pytest.mark.parametrize("name", CHECKS)
def test_file(name: str) -> None:
    if not (GOLDEN / name).exists():
        pytest.skip(f"{GOLDEN} has no {name}")
    CHECKS[name](name)
