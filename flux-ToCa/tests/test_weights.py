from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import save_adapter, save_flux
from tiny_programs import parts, tiny, tiny_params

from flux.files import AE, CONFIGS
from flux.spec import CONFIGS as PARAMS
from flux.weights import load_ae, load_flow_model

__all__ = ["parts", "tiny"]
CPU = "cpu"


@pytest.fixture(autouse=True)
def clean(monkeypatch, tmp_path):
    """No variables, an empty `checkpoints/`, and no network."""
    for config in CONFIGS.values():
        for name in (*config.flow.variables, *(config.lora.variables if config.lora else ()), *AE.variables):
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("flux.files.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_every_named_model_has_its_shape_and_files():
    assert set(CONFIGS) == set(PARAMS)
    assert CONFIGS["flux-dev-canny-lora"].flow is CONFIGS["flux-dev"].flow and CONFIGS["flux-dev-canny-lora"].lora
    assert [CONFIGS[name].t5_length for name in ("flux-dev", "flux-schnell", "flux-dev-fill")] == [512, 256, 128]
    assert [name for name, config in CONFIGS.items() if not config.shifted] == ["flux-schnell"]


@pytest.mark.parametrize("variable", ["FLUX_DEV", "FLUX_MODEL"])
def test_old_and_new_environment_variables(parts, tiny, monkeypatch, variable):
    monkeypatch.setenv(variable, str(parts / "flux1-dev.safetensors"))
    model = load_flow_model("flux-dev", CPU, torch.float32)
    assert torch.equal(model.img_in.weight, load_file(parts / "flux1-dev.safetensors")["img_in.weight"])


def test_the_specific_variable_wins_and_the_flag_wins_over_both(parts, monkeypatch, tmp_path):
    monkeypatch.setenv("FLUX_DEV", str(parts / "flux1-dev.safetensors"))
    monkeypatch.setenv("FLUX_MODEL", str(tmp_path / "nowhere"))
    assert CONFIGS["flux-dev"].flow.find() == parts / "flux1-dev.safetensors"
    assert CONFIGS["flux-dev"].flow.find(str(parts / "flux1-schnell.safetensors")) == parts / "flux1-schnell.safetensors"
    assert CONFIGS["flux-dev"].flow.find(str(parts)) == parts / "flux1-dev.safetensors"
    with pytest.raises(FileNotFoundError, match=r"environment variable FLUX_MODEL names .*nowhere, where there is no flux1-schnell"):
        CONFIGS["flux-schnell"].flow.find()


def test_the_checkpoints_folder(parts, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    target = tmp_path / "checkpoints" / "ae.safetensors"
    target.symlink_to(parts / "ae.safetensors")
    assert AE.find() == target


def test_a_missing_file_says_where_to_get_it_and_where_to_put_it(tmp_path):
    where = r"FLUX.1-Krea-dev, and put it at .*checkpoints/flux1-krea-dev.safetensors, or set FLUX_DEV_KREA or --ckpt"
    with pytest.raises(FileNotFoundError, match=where):
        load_flow_model("flux-dev-krea", CPU)
    with pytest.raises(FileNotFoundError, match=r"no flux1-dev.safetensors of someone/else"):
        load_flow_model("flux-dev", CPU, ckpt="someone/else")


def test_dtype_and_no_gradients(parts, tiny):
    model = load_flow_model("flux-dev", CPU, torch.bfloat16, str(parts))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad or p.is_meta for p in model.parameters()) and not model.training
    assert {p.dtype for p in load_ae(CPU, str(parts)).parameters()} == {torch.float32}


def test_damaged_files_are_one_clear_error(parts, tiny, tmp_path):
    whole = (parts / "flux1-dev.safetensors").read_bytes()
    path = tmp_path / "short.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"short.safetensors is not a safetensors file.*get it from https://huggingface.co"):
        load_flow_model("flux-dev", CPU, ckpt=str(path))
    state = load_file(parts / "flux1-dev.safetensors")
    bad = {**state, "img_in.weight": torch.zeros(3, 64), "extra": torch.zeros(1)}
    bad.pop("txt_in.bias")
    save_file(bad, path)
    differing = r"missing: txt_in.bias; unexpected: extra; wrong shape: img_in.weight is \(3, 64\), wanted \(32, 64\)"
    with pytest.raises(ValueError, match=differing):
        load_flow_model("flux-dev", CPU, ckpt=str(path))


def test_only_a_lora_pads_the_input(parts, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"img_in.weight is \(32, 64\), wanted \(32, 128\)"):
        load_flow_model("flux-dev-canny", CPU, ckpt=str(parts / "flux1-dev.safetensors"))
    lora = str(save_adapter(tmp_path / "lora.safetensors", tiny_params("flux-dev-canny")))
    for keep in (False, True):
        model = load_flow_model("flux-dev-canny-lora", CPU, torch.float32, str(parts), lora=lora, keep_lora=keep)
        assert model.img_in.weight.shape == (32, 128) and hasattr(model.img_in, "lora_A") == keep


def test_a_file_that_is_no_adapter_is_named(parts, tiny, tmp_path):
    path = save_flux(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors: no LoRA in it"):
        load_flow_model("flux-dev-canny-lora", CPU, ckpt=str(parts), lora=str(path))
