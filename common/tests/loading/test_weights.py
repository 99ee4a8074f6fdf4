from __future__ import annotations

import argparse
import os
import pickle

import pytest
import torch
import torch.nn as nn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from toca.loading.weights import find, fingerprint, load_checkpoint, load_into, load_state_dict

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
