"""Checkpoints: official, of training, of another resolution, and diffusers' folders both ways."""

from __future__ import annotations

import runpy
import sys
import types
from pathlib import Path

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from safetensors.torch import save_file
from small import small_pixart
from tiny_parts import FORK, LENGTH, TINY, WIDTH, save_pixart

from pixart.spec import PixArtConfig
from pixart.t5 import T5Embedder
from pixart.weights import (
    NULL_TEXT,
    OFFICIAL,
    POSITIONS,
    check_checkpoint,
    checkpoint_path,
    diffusers_config,
    from_diffusers,
    load_model,
    repeated,
    save_diffusers,
    save_tensors,
    to_diffusers,
)
from toca.loading.weights import load_state_dict

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("tiny")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("size", TINY)
def test_a_checkpoint_is_loaded_whole(parts: Path, size: int) -> None:
    model = load_model(parts / f"{size}.pth", size, CPU)
    assert same(model.state_dict(), small_pixart(TINY[size]).state_dict()) and not model.training
    assert load_model(parts / f"{size}.pth", size, CPU, torch.bfloat16).dtype == torch.bfloat16


def test_positions_are_computed_not_loaded(tmp_path: Path) -> None:
    model = small_pixart(TINY[256])
    state = model.state_dict()
    for positions in ({POSITIONS: torch.zeros_like(state[POSITIONS])}, {}):
        save_file({k: v.contiguous() for k, v in state.items() if k != POSITIONS} | positions, tmp_path / "m.safetensors")
        assert torch.equal(load_model(tmp_path / "m.safetensors", 256, CPU).pos_embed, model.pos_embed)


def test_of_a_training_checkpoint_either_set_of_weights_is_taken(tmp_path: Path) -> None:
    ema = small_pixart(TINY[256], seed=1).state_dict()
    optimizer = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 1e-4}]}
    path = Path(save_pixart(tmp_path / "epoch_1_step_2.pth", TINY[256], state_dict_ema=ema, optimizer=optimizer, epoch=1))
    assert same(load_model(path, 256, CPU).state_dict(), small_pixart(TINY[256]).state_dict())
    assert same(load_model(path, 256, CPU, ema=True).state_dict(), ema)


@pytest.mark.parametrize(("made", "asked"), ((512, 256), (256, 512), (1024, 256), (256, 1024)))
def test_a_checkpoint_of_another_resolution_is_refused_by_its_resolution(parts: Path, made: int, asked: int) -> None:
    with pytest.raises(ValueError, match=f"{made}.pth is a checkpoint for {made} pixels, not for --image_size {asked}"):
        load_model(parts / f"{made}.pth", asked, CPU)


def test_keys_that_differ_are_named(tmp_path: Path) -> None:
    state = small_pixart(TINY[1024]).state_dict()
    del state[POSITIONS], state["blocks.1.mlp.fc1.bias"]
    torch.save({"state_dict": state}, tmp_path / "m.pth")
    with pytest.raises(ValueError, match=r"missing: blocks.1.mlp.fc1.bias; unexpected: csize_embedder.mlp.0.weight"):
        load_model(tmp_path / "m.pth", 256, CPU)


# ---- diffusers -----------------------------------------------------------------------------------------------------------------------


def diffusers_model(config: PixArtConfig) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(**diffusers_config(config)).eval()


@pytest.mark.parametrize("size", TINY)
def test_diffusers_model_takes_the_converted_tensors_strictly_and_gives_them_back(size: int) -> None:
    model = small_pixart(TINY[size])
    theirs = diffusers_model(TINY[size])
    theirs.load_state_dict(to_diffusers(model.state_dict(), TINY[size]), strict=True)
    back = from_diffusers(theirs.state_dict(), TINY[size], model.y_embedder.y_embedding)
    assert same(back | {POSITIONS: model.pos_embed}, model.state_dict())


@pytest.mark.parametrize("size", (256, 1024))
@torch.no_grad()
def test_diffusers_model_computes_the_same(size: int) -> None:
    config = TINY[size].replace(input_size=16)
    model, theirs = small_pixart(config), diffusers_model(config)
    theirs.load_state_dict(to_diffusers(model.state_dict(), config))
    x, y, t = torch.randn(2, 4, 16, 16), torch.randn(2, LENGTH, WIDTH), torch.tensor([949.05, 20.5])
    mask = (torch.arange(LENGTH) < torch.tensor([[5], [9]])).long()
    sizes = dict(resolution=torch.tensor([[128.0, 128.0]] * 2), aspect_ratio=torch.tensor([[1.0]] * 2))
    conditions = sizes if config.micro_conditions else dict(resolution=None, aspect_ratio=None)
    expected = theirs(x, encoder_hidden_states=y, encoder_attention_mask=mask, timestep=t, added_cond_kwargs=conditions).sample
    ours = model(x, t, y, mask, dict(img_hw=sizes["resolution"], aspect_ratio=sizes["aspect_ratio"]))
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=2e-5)


def test_other_keys_and_null_texts_are_refused() -> None:
    state = to_diffusers(small_pixart(TINY[256]).state_dict(), TINY[256])
    with pytest.raises(ValueError, match=r"the null text is \(3, 16\), wanted \(26, 16\)"):
        from_diffusers(state, TINY[256], torch.zeros(3, WIDTH))
    with pytest.raises(ValueError, match=r"the diffusers model lacks \['adaln_single.emb.aspect_ratio"):
        from_diffusers(state, TINY[1024], torch.zeros(LENGTH, WIDTH))
    with pytest.raises(ValueError, match="the checkpoint lacks"):
        to_diffusers({}, TINY[256])


def tool(monkeypatch: pytest.MonkeyPatch, name: str, *flags: str) -> None:
    monkeypatch.setattr(sys, "argv", [name, *flags])
    runpy.run_path(str(FORK / "tools" / f"{name}.py"), run_name="__main__")


def test_the_tools_convert_files_and_back(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, null, back = str(tmp_path / "transformer"), str(tmp_path / "null.safetensors"), str(tmp_path / "back.safetensors")
    size = ["--image_size", "1024"]
    there, again = "convert_pixart_alpha_to_diffusers", "convert_diffusers_to_pixart_alpha"
    tool(monkeypatch, there, *size, "--model_path", f"{parts}/1024.pth", "--output", folder, "--null_text", null)
    tool(monkeypatch, again, *size, "--folder", folder, "--null_text", null, "--output", back)
    assert same(load_model(Path(back), 1024, CPU).state_dict(), small_pixart(TINY[1024]).state_dict())

    tool(monkeypatch, again, *size, "--folder", folder, "--t5_path", str(parts), "--output", back)
    t5 = T5Embedder(str(parts / "t5-v1_1-xxl"), CPU, model_max_length=LENGTH)
    end_token = t5.get_text_embeddings([""])[0][0, :1]
    assert torch.equal(load_state_dict(back)[NULL_TEXT], end_token.expand(LENGTH, -1))
    with pytest.raises(SystemExit, match=r"holds no y_embedder\.y_embedding"):
        save_file({"x": torch.zeros(1)}, null)
        tool(monkeypatch, again, *size, "--folder", folder, "--null_text", null, "--output", back)


@torch.no_grad()
def test_the_end_token_repeated_is_diffusers_empty_prompt() -> None:
    """There one token under its own mask; here as many as the caption has, under the caption's."""
    config = TINY[256].replace(input_size=16)
    model, theirs, end_token = small_pixart(config), diffusers_model(config), torch.randn(1, WIDTH)
    theirs.load_state_dict(to_diffusers(model.state_dict(), config))
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([500.0, 500.0])
    empty = torch.cat([end_token, torch.randn(LENGTH - 1, WIDTH)]).expand(2, -1, -1)  # T5 says something about padding too
    alone = (torch.arange(LENGTH) < 1).long().expand(2, -1)
    nothing = dict(resolution=None, aspect_ratio=None)
    expected = theirs(x, empty, t, nothing, encoder_attention_mask=alone).sample
    captions = (torch.arange(LENGTH) < torch.tensor([[5], [9]])).long()
    torch.testing.assert_close(model(x, t, repeated(end_token, LENGTH).expand(2, -1, -1), captions), expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("size", TINY)
def test_diffusers_folders_are_loaded_as_they_are(size: int, tmp_path: Path) -> None:
    model = small_pixart(TINY[size])
    save_diffusers(tmp_path / "pipeline" / "transformer", model.state_dict(), TINY[size])
    null_text = model.y_embedder.y_embedding
    for given in (tmp_path / "pipeline", tmp_path / "pipeline" / "transformer"):
        path = checkpoint_path(size, str(given))
        assert check_checkpoint(path, size)
        assert same(load_model(path, size, CPU, null_text=null_text).state_dict(), model.state_dict())
    of_t5 = load_model(path, size, CPU, null_text=null_text[:1])
    assert torch.equal(of_t5.y_embedder.y_embedding, null_text[:1].expand(LENGTH, -1))
    with pytest.raises(ValueError, match="in diffusers' layout, which has no null text"):
        load_model(path, size, CPU)


def test_diffusers_folders_of_another_resolution_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tensors of 256 and 512 pixels have the same shapes: the configuration alone tells them apart."""
    save_diffusers(tmp_path / "t", small_pixart(TINY[512]).state_dict(), TINY[512])
    with pytest.raises(ValueError, match="is a checkpoint for 512 pixels, not for --image_size 256"):
        check_checkpoint(tmp_path / "t", 256)
    with pytest.raises(ValueError, match="is a checkpoint for 512 pixels, not for --image_size 1024"):
        check_checkpoint(tmp_path / "t", 1024)
    (tmp_path / "t" / "config.json").unlink()
    assert check_checkpoint(tmp_path / "t", 256)
    assert "does not say for which resolution it was made: it is taken for --image_size 256" in capsys.readouterr().out


def test_averaged_weights_that_are_not_there_are_refused(parts: Path, tmp_path: Path) -> None:
    plain, flat = tmp_path / "plain.safetensors", tmp_path / "flat.pth"
    save_tensors(plain, small_pixart(TINY[256]).state_dict())
    torch.save(small_pixart(TINY[256]).state_dict(), flat)
    for path, has in ((parts / "256.pth", "only state_dict"), (plain, "one set"), (flat, "one set")):
        for load in (lambda path: load_model(path, 256, CPU, ema=True), lambda path: check_checkpoint(path, 256, ema=True)):
            with pytest.raises(ValueError, match=rf"--ema: .* has no averaged weights \(state_dict_ema\); it has {has}"):
                load(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    state = small_pixart(TINY[256]).state_dict()
    state["blocks.1.mlp.fc1.bias"] = torch.full_like(state["blocks.1.mlp.fc1.bias"], value)
    save_tensors(tmp_path / "m.safetensors", state)
    with pytest.raises(ValueError, match=r"the tensor blocks\.1\.mlp\.fc1\.bias holds NaN or infinite values"):
        load_model(tmp_path / "m.safetensors", 256, CPU)


@pytest.mark.parametrize("size", TINY)
def test_a_checkpoint_is_checked_without_its_tensors(parts: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart.weights.load_state_dict", None)
    assert not check_checkpoint(parts / f"{size}.pth", size)


def test_the_tools_take_upstream_s_spellings(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its default of 1024 pixels, its names of the checkpoint and of the folder above the transformer's."""
    tool(monkeypatch, "convert_pixart_alpha_to_diffusers", "--orig_ckpt_path", f"{parts}/1024.pth", "--dump_path", str(tmp_path / "dump"))
    assert sorted(path.name for path in (tmp_path / "dump" / "transformer").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    PixArtTransformer2DModel.from_pretrained(tmp_path / "dump" / "transformer")


def test_a_converted_checkpoint_says_its_resolution(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_diffusers(tmp_path / "t", small_pixart(TINY[512]).state_dict(), TINY[512])
    back, size = tmp_path / "back.safetensors", ["--image_size", "512"]
    flags = ["--folder", str(tmp_path / "t"), "--null_text", f"{parts}/512.pth", "--output", str(back)]
    tool(monkeypatch, "convert_diffusers_to_pixart_alpha", *size, *flags)
    with pytest.raises(ValueError, match="is a checkpoint for 512 pixels, not for --image_size 256"):
        check_checkpoint(back, 256)


def test_files_in_the_way_of_a_conversion_stay(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "file").write_text("mine", encoding="utf-8")
    flags = ["--image_size", "256", "--model_path", f"{parts}/256.pth", "--output"]
    with pytest.raises(SystemExit, match="file is a file, not a folder"):
        tool(monkeypatch, "convert_pixart_alpha_to_diffusers", *flags, str(file))
    with pytest.raises(SystemExit, match="is not empty: remove it, or choose another folder"):
        tool(monkeypatch, "convert_pixart_alpha_to_diffusers", *flags, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and file.read_text(encoding="utf-8") == "mine"


def test_downloads_are_asked_for_by_size_or_by_upstream_s_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda repo, name, local_dir: asked.append(name) or name)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo, local_dir, allow_patterns: asked.append(repo) or repo)
    monkeypatch.setattr("pixart.flags.PRETRAINED", tmp_path)
    monkeypatch.setattr("toca.runs.outputs.shutil.disk_usage", lambda path: types.SimpleNamespace(free=30e9))
    for flags, names in (
        ([], [*OFFICIAL.values()]),
        (["--models", "256"], [OFFICIAL[256]]),
        (["--model_names", "PixArt-XL-2-SAM-256x256.pth", OFFICIAL[512]], ["PixArt-XL-2-SAM-256x256.pth", OFFICIAL[512]]),
        (["--models", "--vae"], ["stabilityai/sd-vae-ft-ema"]),
        (["--t5", "--models"], ["DeepFloyd/t5-v1_1-xxl"]),
    ):
        asked.clear()
        tool(monkeypatch, "download", *flags)
        assert asked == names
    monkeypatch.setattr("toca.runs.outputs.shutil.disk_usage", lambda path: types.SimpleNamespace(free=3e9))
    with pytest.raises(SystemExit, match=r"pretrained_models .*: this run writes about 7\.5 GB, and the disk has 3\.0 GB free"):
        tool(monkeypatch, "download")
