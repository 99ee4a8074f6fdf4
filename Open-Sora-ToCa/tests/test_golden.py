"""Replay the reference runs, wherever `golden_folder.find_folder` finds them: sampling cases and single functions. The autoencoder's cases
are replayed by test_golden_vae.py, reference pictures and prompts by test_inference_utils.py."""

from __future__ import annotations

import pytest
import torch
from golden_folder import CASES, GOLDEN, tensors
from golden_modules import ELSEWHERE, INPUTS, check_forward, check_function
from golden_sampling import check_case

OTHERS = {"README.md", "cases.json", "config.json", "weights.safetensors"}
OF_OTHER_TESTS = {"inference_helpers.json", "vae_config.json", "vae_weights.safetensors", "vae_keys.json", "checkpoint_keys.json"}
KINDS = {"sampling", "modules", "vae"}
SAMPLING = [name for name, case in CASES.items() if case["kind"] == "sampling"]
MODULES = tensors("modules.safetensors") if "modules" in CASES else {}
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
    assert SAMPLING and FUNCTIONS


@pytest.mark.parametrize("name", SAMPLING)
def test_sampling_case(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES[name]
    assert SETTINGS <= case.keys() <= KNOWN, f"fields this runner does not know: {case.keys() - KNOWN}"
    check_case(case, name, monkeypatch)


@pytest.mark.parametrize("key", FUNCTIONS)
def test_function(key: str) -> None:
    check_function(key, MODULES)


@pytest.mark.parametrize("case", ["nomask", "xmask"])
def test_forward(case: str) -> None:
    check_forward(MODULES, case, MODULES["fwd.x_mask"].bool() if case == "xmask" else None)


def test_forward_keys_are_all_checked() -> None:
    rest = {key for key in MODULES if key.startswith("fwd.")} - INPUTS
    assert all(key.startswith(("fwd.nomask.", "fwd.xmask.")) for key in rest)


def test_a_mask_of_ones_is_no_mask() -> None:
    whole = torch.ones(MODULES["fwd.x_mask"].shape, dtype=torch.bool)
    check_forward({key: MODULES[key] for key in (*INPUTS, "fwd.nomask.out", "fwd.nomask.temporal_blocks.27")}, "nomask", whole)
