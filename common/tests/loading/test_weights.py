from __future__ import annotations

import argparse
import json
import os
import pickle
import re

import pytest
import torch
import torch.nn as nn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from toca.loading.weights import (
    check_header,
    find,
    fingerprint,
    identity,
    load_checkpoint,
    load_into,
    load_state_dict,
    parts_of,
    shapes_of,
    unwrapped,
)

STATE = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}


class Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def assert_same(state, expected=STATE):
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], expected[key]) for key in expected)


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"ema": STATE, "model": {"a": torch.zeros(3)}, "opt": {"state": {}}, "args": argparse.Namespace(lr=1e-4, vae="ema")},
        {"ema": STATE, "model": {"a": torch.zeros(3)}, "opt": [{"state": {}}], "args": {"lr": 1e-4}, "step": 3},
        {"model": STATE, "args": argparse.Namespace()},
    ],
    ids=["flat", "upstream training", "our training", "no ema"],
)
def test_every_kind_of_torch_checkpoint_opens(tmp_path, content, zip_format):
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zip_format)
    assert_same(load_state_dict(tmp_path / "a.pt"))


def test_of_a_checkpoint_with_several_state_dicts_the_first_that_was_asked_for_is_taken(tmp_path):
    torch.save({"state_dict": STATE, "state_dict_ema": {"a": torch.zeros(3)}, "ema": {}}, tmp_path / "c.pth")
    assert_same(load_state_dict(tmp_path / "c.pth", parts=("absent", "state_dict", "state_dict_ema")))
    assert_same(load_state_dict(tmp_path / "c.pth", parts=("state_dict_ema",)), {"a": torch.zeros(3)})


def test_safetensors_open(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert_same(load_state_dict(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("where", ["alone", "in the arguments", "plain pickle"])
def test_a_checkpoint_that_wants_to_run_code_is_refused(tmp_path, where):
    bomb, path = Bomb(tmp_path / "ran"), tmp_path / "a.pt"
    if where == "plain pickle":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb if where == "alone" else {"ema": STATE, "args": argparse.Namespace(x=bomb)}, path)
    with pytest.raises(ValueError, match=r"a\.pt is refused") as error:
        load_state_dict(path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "ran").exists()
    pickle.loads(pickle.dumps(bomb))
    assert (tmp_path / "ran").exists()  # the bomb does work


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.one_of(st.binary(max_size=60), st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail)))
def test_bytes_that_are_no_checkpoint_give_one_error(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.pt"):
        load_state_dict(tmp_path / "a.pt")
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.safetensors"):
        load_state_dict(tmp_path / "a.safetensors")


def test_a_truncated_checkpoint_gives_one_error(tmp_path):
    torch.save(STATE, tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="is refused"):
        load_state_dict(tmp_path / "a.pt")


def test_other_content_is_named(tmp_path):
    torch.save([1, 2], tmp_path / "a.pt")
    with pytest.raises(ValueError, match="holds a list"):
        load_checkpoint(tmp_path / "a.pt")
    torch.save({"a": torch.ones(1), "epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match="epoch are not tensors"):
        load_state_dict(tmp_path / "a.pt")


def test_loading_is_strict_and_names_keys_and_shapes():
    state = {"weight": torch.ones(3, 2), "extra": torch.ones(1)}
    with pytest.raises(ValueError) as error:
        load_into(nn.Linear(2, 2), state, "a.pt")
    text = str(error.value)
    assert "missing: bias" in text and "unexpected: extra" in text and "weight is (3, 2), wanted (2, 2)" in text and "a.pt" in text


def test_loading_takes_over_tensors_on_the_meta_device_and_copies_elsewhere():
    state = {"weight": torch.randn(2, 2), "bias": torch.randn(2)}
    with torch.device("meta"):
        model = nn.Linear(2, 2)
        model.bias.requires_grad_(False)
    load_into(model, state, "")
    assert model.weight.data_ptr() == state["weight"].data_ptr()
    assert model.weight.requires_grad and not model.bias.requires_grad
    model = nn.Linear(2, 2)
    load_into(model, state, "")
    assert torch.equal(model.weight, state["weight"]) and model.weight.data_ptr() != state["weight"].data_ptr()


def test_find_looks_at_the_path_then_in_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pretrained"
    folder.mkdir()
    (folder / "a.pt").touch()
    assert find("a.pt", folder, "", "").resolve() == folder / "a.pt"
    (tmp_path / "a.pt").touch()
    assert find("a.pt", folder, "", "").resolve() == tmp_path / "a.pt"
    assert find(str(folder / "a.pt"), tmp_path, "", "") == folder / "a.pt"
    with pytest.raises(FileNotFoundError) as error:
        find("b.pt", folder, "SOURCE", "INSTEAD")
    assert all(part in str(error.value) for part in ("b.pt", "SOURCE", str(folder), "INSTEAD"))


def test_a_fingerprint_tells_files_of_one_size_apart(tmp_path):
    def of(content: bytes) -> str:
        (tmp_path / "a").write_bytes(content)
        return fingerprint(tmp_path / "a", ends=4)

    assert of(b"abcdefghijkl") == of(b"abcdefghijkl")
    assert len({of(b"abcdefghijkl"), of(b"xbcdefghijkl"), of(b"abcdefghijkx"), of(b"abcdefghijklm"), of(b""), of(b"a")}) == 6


# ---- what a file is, by its content ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.safetensors", "a.SAFETENSORS", "a.sft", "a.pt", "a"])
def test_formats_are_told_apart_by_content(tmp_path, name):
    save_file(STATE, tmp_path / name)
    assert_same(load_state_dict(tmp_path / name))
    for zip_format in (True, False):
        torch.save(STATE, tmp_path / name, _use_new_zipfile_serialization=zip_format)
        assert_same(load_state_dict(tmp_path / name))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"GGUF\x03\0\0\0" + bytes(50), "is a GGUF file, which no program here reads"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a pointer of Git LFS"),
        (b"<!DOCTYPE html><html></html>", "is a web page"),
        (b"\x20\0\0\0\0\0\0\0{not json", "is not a safetensors file, or damaged"),
    ],
)
def test_files_of_other_kinds_are_named(tmp_path, content, what):
    (tmp_path / "a.safetensors").write_bytes(content)
    for read in (load_state_dict, shapes_of):
        with pytest.raises(ValueError, match=rf"a\.safetensors {what}"):
            read(tmp_path / "a.safetensors")


def test_no_error_advises_to_switch_safety_off(tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "script.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "module.pt")
    torch.save({"a": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "cut.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "cut.pt").read_bytes()[:-40])
    for name, reason in {"script": "TorchScript", "module": r"to run torch\.nn", "bomb": r"to run \w+\.mkdir", "cut": "Error"}.items():
        for read in (load_state_dict, shapes_of, load_checkpoint):
            with pytest.raises(ValueError, match=reason) as error:
                read(tmp_path / f"{name}.pt")
            assert not re.search("weights_only|safe_globals|trust|allowlist", str(error.value))
    assert not (tmp_path / "ran").exists()


# ---- tensors that are no weights ------------------------------------------------------------------------------------------------------


QUANTISED = torch.quantize_per_tensor(torch.ones(2, 2), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        (torch.tensor([1.0, torch.nan]), "holds NaN or infinite values"),
        (torch.tensor([1.0, -torch.inf], dtype=torch.bfloat16), "holds NaN or infinite values"),
        (torch.tensor([1.0, torch.inf], dtype=torch.float16), "holds NaN or infinite values"),
        (torch.ones(2, dtype=torch.complex64), "is complex"),
        (torch.eye(2).to_sparse(), "is sparse"),
        (QUANTISED, "is quantised"),
        (torch.ones(2, dtype=torch.int8), "is int8, and weights are floats"),
    ],
)
def test_tensors_that_are_no_weights_are_named(tmp_path, bad, what):
    torch.save({"a": torch.ones(2), "block.weight": bad}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt: the tensor block\.weight {what}"):
        load_state_dict(tmp_path / "a.pt")


def test_finite_weights_of_any_size_and_kind_pass(tmp_path):
    state = {
        "large": torch.full((9,), 3e38),
        "half": torch.full((9,), 65504.0, dtype=torch.float16),
        "empty.weight": torch.ones(0, 3),
        "position_ids": torch.arange(3),
        "eight.weight": torch.ones(4).to(torch.float8_e4m3fn),
    }
    torch.save(state, tmp_path / "a.pt")
    assert load_state_dict(tmp_path / "a.pt").keys() == state.keys()


def test_names_are_text(tmp_path):
    torch.save({0: torch.ones(1), "a": torch.ones(1)}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"a\.pt holds no state dict: 0 are no names"):
        load_state_dict(tmp_path / "a.pt")


def test_whole_numbers_are_no_floats():
    with pytest.raises(ValueError, match=r"a\.pt does not fit the model: bias is int64, wanted float32"):
        load_into(nn.Linear(2, 2), {"weight": torch.ones(2, 2), "bias": torch.ones(2).long()}, "a.pt")


# ---- wrapped names --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "_orig_mod.module.{}", "module.module.{}"])
def test_what_wrapped_a_model_goes_from_names_and_a_line_says_so(tmp_path, capsys, template):
    save_file({template.format(key): value for key, value in STATE.items()}, tmp_path / "a.safetensors")
    assert_same(load_state_dict(tmp_path / "a.safetensors"))
    assert f"a.safetensors: its names were wrapped, {template.format('a')} is read as a\n" in capsys.readouterr().out
    assert shapes_of(tmp_path / "a.safetensors") == {"a": (3,), "b": (2, 2)} and not capsys.readouterr().out


def test_compiled_and_sharded_blocks_are_unwrapped_within_names():
    state = {
        "blocks.0._orig_mod.attn.weight": 1,
        "blocks.1._fsdp_wrapped_module._checkpoint_wrapped_module.attn.weight": 2,
        "head_orig_mod.a": 3,
    }
    assert unwrapped(state, None) == {"blocks.0.attn.weight": 1, "blocks.1.attn.weight": 2, "head_orig_mod.a": 3}


def test_names_that_only_some_have_or_that_would_collide_stay():
    for state in ({"module.a": 1, "b": 2}, {"_orig_mod.a": 1, "a": 2}, {"module.a": 1, "module._orig_mod.a": 2}, {}):
        assert unwrapped(state, None) == state


def test_a_prefix_model_goes_where_all_have_it_and_the_model_does_not(capsys):
    state = {"model.weight": torch.randn(2, 2), "model.bias": torch.randn(2)}
    model = nn.Linear(2, 2)
    load_into(model, state, "a.pt")
    assert torch.equal(model.weight, state["model.weight"]) and "a.pt: `model.` before all its names is left out" in capsys.readouterr().out
    outer = nn.ModuleDict({"model": nn.Linear(2, 2)})
    load_into(outer, state, "a.pt")
    assert torch.equal(outer["model"].weight, state["model.weight"]) and not capsys.readouterr().out
    for other in ({**state, "extra": torch.ones(1)}, {"model.w": torch.ones(1)}):
        with pytest.raises(ValueError, match=r"unexpected: model\.w"):
            load_into(nn.Linear(2, 2), other, "a.pt")


def test_errors_say_what_was_given():
    flux = {"transformer_blocks.0.attn.add_q_proj.weight": torch.ones(1), "single_transformer_blocks.0.proj_mlp.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"a\.pt does not fit the model: it is a FLUX transformer in diffusers' layout; missing: weight"):
        load_into(nn.Linear(2, 2), flux, "a.pt")


# ---- headers and shards ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "torch", "old torch", "training"])
def test_a_header_is_checked_without_reading_tensors(tmp_path, kind):
    path = tmp_path / "a"
    if kind == "safetensors":
        save_file(STATE, path)
    else:
        content = {"ema": STATE, "opt": {}} if kind == "training" else STATE
        torch.save(content, path, _use_new_zipfile_serialization=kind != "old torch")
    expected = {key: value.shape for key, value in STATE.items()}
    assert shapes_of(path) == expected
    check_header(path, expected)
    check_header(path, {"a": (3,)}, ignored=["b"])
    with pytest.raises(ValueError, match=r"does not fit the model: missing: c; unexpected: b; wrong shape: a is \(3,\), wanted \(4,\)"):
        check_header(path, {"a": [4], "c": (1,)})


def test_a_header_tells_that_a_file_is_cut_off(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "a.safetensors").write_bytes(whole[:-4])
    with pytest.raises(ValueError, match=r"a\.safetensors is not a safetensors file, or damaged"):
        check_header(tmp_path / "a.safetensors", {})


def shard(folder, names=("1.safetensors", "2.safetensors"), stem="model.safetensors"):
    for (key, value), name in zip(STATE.items(), names, strict=True):
        save_file({key: value}, folder / name)
    index = folder / f"{stem}.index.json"
    index.write_text(json.dumps({"weight_map": dict(zip(STATE, names, strict=True))}))
    return index


@pytest.mark.parametrize("stem", ["model.safetensors", "diffusion_pytorch_model.safetensors"])
def test_sharded_checkpoints_open_by_folder_and_by_index(tmp_path, stem):
    index = shard(tmp_path, stem=stem)
    for path in (index, tmp_path, str(tmp_path)):
        assert_same(load_state_dict(path))
        assert shapes_of(path) == {"a": (3,), "b": (2, 2)}
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks 2\.safetensors, which .*index\.json names"):
        shapes_of(tmp_path)


def test_a_folder_of_one_file_opens(tmp_path):
    save_file(STATE, tmp_path / "diffusion_pytorch_model.safetensors")
    assert_same(load_state_dict(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"holds no weights: there is no model\.safetensors"):
        load_state_dict(tmp_path.joinpath("..", "nothing").mkdir() or tmp_path.parent / "nothing")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load_state_dict(tmp_path / "none.pt")


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../x"}}', '{"weight_map": {}}']
)
def test_an_index_that_is_none_or_leads_elsewhere_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"index\.json"):
        load_state_dict(path)


def test_parts_of_a_training_checkpoint(tmp_path):
    torch.save({"state_dict": STATE, "state_dict_ema": STATE, "epoch": 3, "optimizer": {"state": {}}}, tmp_path / "training.pt")
    torch.save(STATE, tmp_path / "plain.pt")
    save_file(STATE, tmp_path / "plain.safetensors")
    assert parts_of(tmp_path / "training.pt") == ["state_dict", "state_dict_ema", "optimizer"]
    assert parts_of(tmp_path / "plain.pt") == parts_of(tmp_path / "plain.safetensors") == []


def test_identities_tell_files_folders_and_names_apart(tmp_path):
    for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(content)
    a, b, c = (tmp_path / name for name in "abc")
    (b / "README.md").write_text("no matter", encoding="utf-8")
    assert identity(a) == identity(b)
    assert len({identity(a), identity(c), identity(a, c), identity(a, more=["x"]), identity("some/name"), identity("other/name")}) == 6
    assert identity(a / "model.safetensors") == identity(b / "model.safetensors") != identity(c / "model.safetensors")
    before = identity(a)
    (a / "config.json").write_text("{}", encoding="utf-8")
    assert identity(a) != before
