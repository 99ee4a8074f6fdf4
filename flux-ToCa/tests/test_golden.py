"""Replay the reference runs, wherever `toca.testing.golden` finds them: sampling cases and traces of single calls."""

from __future__ import annotations

import pytest
from golden_data import CASES, CONFIGS, GOLDEN
from golden_sampling import check_case
from golden_traces import CHECKS

INDEXED = {"README.md", "cases.json", "config.json", "checkpoint_keys.json", "model_keys.json"}
ELSEWHERE = {"ae_case.safetensors", "ae_weights.safetensors", "sampling_utils.json", "sampling_utils.safetensors"}  # not of the model
SETTINGS = {"case", "config", "weights", "method", "cache", "batch", "grid_h", "grid_w", "txt_tokens"}
SETTINGS |= {"num_steps", "schedule_shift", "guidance"}
KNOWN = SETTINGS | {"step_types", "noise", "refreshed_rows_first_cached_step"}


def test_nothing_in_the_folder_is_unknown() -> None:
    weights = {config["weights_file"] for config in CONFIGS.values() if "params" in config}
    listed = {f"{name}.safetensors" for name in CASES} | weights
    found = {path.name for path in GOLDEN.iterdir()}
    assert listed <= found, f"missing: {listed - found}"
    unknown = found - listed - INDEXED - ELSEWHERE - set(CHECKS)
    assert not unknown, f"files this runner does not know: {unknown}"
    assert CASES


@pytest.mark.parametrize("name", CASES)
def test_sampling_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert case["case"] == name and SETTINGS <= set(case) <= KNOWN, f"fields this runner does not know: {set(case) - KNOWN}"
    check_case(case, monkeypatch)


@pytest.mark.parametrize("name", CHECKS)
def test_trace(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (GOLDEN / name).exists():
        pytest.skip(f"{GOLDEN} has no {name}")
    CHECKS[name](name, monkeypatch)
