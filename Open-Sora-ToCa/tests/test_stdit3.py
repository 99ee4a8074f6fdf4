"""The model: published checkpoints' names and shapes, loading, precision, texts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small import SMALL, inputs, sample, small_stdit3
from torch import Tensor

from opensora.models.stdit.stdit3 import STDiT3, STDiT3_3B_2, STDiT3_XL_2, load_stdit3, text_rows
from opensora.registry import MODELS, build_module
from opensora.spec import CONFIGS

HERE = Path(__file__).resolve().parent
MANIFESTS = json.loads((HERE / "golden" / "checkpoint_keys.json").read_text())
PARAMETERS = {"STDiT3-XL/2": 1_207_643_972, "STDiT3-3B/2": 3_182_211_572}
SETTINGS = dict(depth=2, hidden_size=32, num_heads=2, caption_channels=12, model_max_length=7, patch_size=[1, 2, 2], model_type="STDiT3")


@pytest.mark.parametrize("name", MANIFESTS)
def test_names_and_shapes_of_the_published_checkpoints(name: str) -> None:
    with torch.device("meta"):
        model = STDiT3(CONFIGS[name])
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == MANIFESTS[name]
    null = model.y_embedder.y_embedding.numel() + model.rope.freqs.numel()
    assert PARAMETERS[name] - sum(p.numel() for p in model.parameters()) in (0, null, model.rope.freqs.numel())


def test_both_models_are_registered() -> None:
    assert MODELS.module_dict["STDiT3-XL/2"] is STDiT3_XL_2 and MODELS.module_dict["STDiT3-3B/2"] is STDiT3_3B_2


def save_folder(model: STDiT3, folder: Path, shards: int = 1) -> Path:
    """A folder as OpenSora-STDiT-v3."""
    folder.mkdir()
    state = model.state_dict()
    if shards == 1:
        save_file(state, folder / "model.safetensors")
    else:
        names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
        for i, name in enumerate(names):
            save_file({key: state[key] for key in list(state)[i::shards]}, folder / name)
        weight_map = {key: names[i % shards] for i, key in enumerate(state)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=weight_map)))
    (folder / "config.json").write_text(json.dumps(SETTINGS | dict(architectures=["STDiT3"], torch_dtype="float32", input_size=[None] * 3)))
    return folder


def same(a: STDiT3, b: STDiT3) -> bool:
    return all(torch.equal(value, b.state_dict()[key]) for key, value in a.state_dict().items())


@pytest.mark.parametrize("shards", [1, 2])
def test_a_folder(tmp_path: Path, shards: int) -> None:
    model = small_stdit3()
    folder = save_folder(model, tmp_path / "STDiT-v3", shards)
    config = dict(type="STDiT3-XL/2", from_pretrained=str(folder), qk_norm=True, enable_flash_attn=True, enable_layernorm_kernel=True)
    assert same(model, build_module(config, MODELS))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt", "model.pth"])
def test_a_file(tmp_path: Path, name: str) -> None:
    model = small_stdit3()
    save = save_file if name.endswith("safetensors") else torch.save
    save(model.state_dict(), tmp_path / name)
    assert same(model, STDiT3_XL_2(from_pretrained=str(tmp_path / name), **SETTINGS))


def test_what_is_computed_need_not_be_in_a_file(tmp_path: Path) -> None:
    model = small_stdit3()
    state = model.state_dict() | {"pos_embed": torch.zeros(1, 4, 32), "pos_embed_temporal": torch.zeros(1, 4, 32)}
    del state["rope.freqs"]
    for rows in (5, 9):  # of the null caption; the model has 7
        state["y_embedder.y_embedding"] = torch.arange(rows)[:, None].expand(-1, 12).float().contiguous()
        save_file(state, tmp_path / "model.safetensors")
        loaded = load_stdit3(SMALL, tmp_path / "model.safetensors")
        assert loaded.y_embedder.y_embedding[:, 0].tolist() == [min(row, rows - 1) for row in range(7)]
        assert torch.equal(loaded.rope.freqs, model.rope.freqs)
        loaded.y_embedder.y_embedding = model.y_embedder.y_embedding
        assert same(model, loaded)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("t_block.1.bias"), "missing: t_block.1.bias"),
        (lambda state: state.update(other=torch.zeros(1)), "unexpected: other"),
        (lambda state: state.update({"t_block.1.bias": torch.zeros(3)}), r"wrong shape: t_block.1.bias is \(3,\), wanted \(192,\)"),
    ],
)
def test_a_checkpoint_that_does_not_fit(tmp_path: Path, change: Callable[[dict[str, Tensor]], Any], message: str) -> None:
    state = small_stdit3().state_dict()
    change(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        load_stdit3(SMALL, tmp_path / "model.safetensors")


def test_a_checkpoint_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        STDiT3_XL_2(from_pretrained="./nowhere.safetensors")


def test_rotary_frequencies_stay_precise() -> None:
    model = small_stdit3().to(torch.bfloat16)
    assert model.t_block[1].weight.dtype is torch.bfloat16 and model.rope.freqs.dtype is torch.float32
    assert torch.equal(model.rope(4), small_stdit3().rope(4))


def test_half_precision_is_near_single() -> None:
    data = inputs(1)
    single, half = sample(small_stdit3(), None, data, 4), sample(small_stdit3().to(torch.bfloat16), None, data, 4)
    assert half.dtype is torch.float32 and (single - half).std() < 0.1 * single.std()


def test_text_rows_come_first_wherever_they_were() -> None:
    y = torch.arange(4.0)[None, None, :, None].repeat(4, 1, 1, 1)
    text, mask = text_rows(y, torch.tensor([[0, 1, 0, 1], [1, 1, 1, 0]]))
    assert mask.tolist() == [[True, True, False], [True, True, True]] * 2
    assert text[mask][:, 0].tolist() == [1.0, 3.0, 0.0, 1.0, 2.0] * 2
    with pytest.raises(ValueError, match="at least one token"):
        text_rows(y, torch.tensor([[0, 0, 0, 0], [1, 1, 1, 0]]))


def test_what_a_mask_leaves_out_changes_nothing() -> None:
    data, model = inputs(2), small_stdit3()
    other = data["y"].clone()
    other[0, :, 6:], other[1, :, 4:] = 100.0, -100.0
    torch.testing.assert_close(sample(model, None, data | dict(y=other), 2), sample(model, None, data, 2))


def test_sizes_of_the_video_are_needed() -> None:
    with pytest.raises(ValueError, match="fps, height and width"):
        small_stdit3()(torch.zeros(2, 4, 1, 2, 2), torch.zeros(2), torch.zeros(2, 1, 7, 12))
