"""Replay the reference runs, wherever `golden_folder.find_folder` finds them: sampling cases and single functions. The autoencoder's cases
are replayed by test_golden_vae.py, reference pictures and prompts by test_inference_utils.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from golden_folder import CASES, GIVEN, GOLDEN, MODULES, WITH_MODULES
from golden_modules import ELSEWHERE, INPUTS, check_forward, check_function
from golden_sampling import check_case

from toca.testing.programs import environment

OTHERS = {"README.md", "cases.json", "config.json", "weights.safetensors"}
OF_OTHER_TESTS = {"inference_helpers.json", "vae_config.json", "vae_weights.safetensors", "vae_keys.json", "checkpoint_keys.json"}
KINDS = {"sampling", "modules", "vae"}
SAMPLING = [name for name, case in CASES.items() if case["kind"] == "sampling"]
FUNCTIONS = [key for key in MODULES if not ELSEWHERE.fullmatch(key) and key not in INPUTS and not key.startswith("fwd.")]
SETTINGS = {"kind", "method", "note", "batch", "latent_thw", "height_width_px", "num_frames", "fps", "steps", "text_lens", "cfg_scale"}
SETTINGS |= {"use_timestep_transform", "use_discrete_timesteps", "seed_of_inputs", "kept_model_outputs", "tensors"}
KNOWN = SETTINGS | {"cache", "cycles", "full_steps", "detailed_decisions", "s4_bonus"}


def test_nothing_in_the_folder_is_unknown() -> None:
    listed = {f"{name}.safetensors" for name in CASES}
    found = {path.name for path in GOLDEN.iterdir()}
    assert listed <= found, f"missing: {listed - found}"
    assert not found - listed - OTHERS - OF_OTHER_TESTS, "files this runner does not know"
    assert {case["kind"] for case in CASES.values()} <= KINDS, "cases this runner does not know"
    assert CASES and (GIVEN or (SAMPLING and FUNCTIONS))


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert SETTINGS <= case.keys() <= KNOWN, f"fields this runner does not know: {case.keys() - KNOWN}"
    check_case(case, name, monkeypatch)


@pytest.mark.parametrize("key", FUNCTIONS)
def test_function(key: str) -> None:
    check_function(key, MODULES)


@WITH_MODULES
@pytest.mark.parametrize("case", ["nomask", "xmask"])
def test_forward(case: str) -> None:
    check_forward(MODULES, case, MODULES["fwd.x_mask"].bool() if case == "xmask" else None)


def test_forward_keys_are_all_checked() -> None:
    rest = {key for key in MODULES if key.startswith("fwd.")} - INPUTS
    assert all(key.startswith(("fwd.nomask.", "fwd.xmask.")) for key in rest)


@WITH_MODULES
def test_a_mask_of_ones_is_no_mask() -> None:
    whole = torch.ones(MODULES["fwd.x_mask"].shape, dtype=torch.bool)
    check_forward({key: MODULES[key] for key in (*INPUTS, "fwd.nomask.out", "fwd.nomask.temporal_blocks.27")}, "nomask", whole)


@pytest.mark.parametrize("kind", ["sampling", "dreaming"])
def test_a_folder_need_not_hold_every_kind_of_case(tmp_path: Path, kind: str) -> None:
    """But each that it holds is replayed, or is an error."""
    name = SAMPLING[0]
    for file in ("config.json", "weights.safetensors", f"{name}.safetensors"):
        (tmp_path / file).symlink_to(GOLDEN / file)
    (tmp_path / "cases.json").write_text(json.dumps({name: CASES[name] | dict(kind=kind)}))
    tests = ("test_golden.py", "test_golden_vae.py", "test_inference_utils.py", "test_rflow.py", "test_text_encoder.py")
    command = [sys.executable, "-m", "pytest", "-q", *tests, "-k", "not need_not_hold"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, env=environment() | dict(TOCA_GOLDEN_DIR=str(tmp_path)), capture_output=True, text=True
    )
    if kind == "sampling":
        assert done.returncode == 0, done.stdout
    else:
        assert done.returncode == 1 and "cases this runner does not know" in done.stdout
