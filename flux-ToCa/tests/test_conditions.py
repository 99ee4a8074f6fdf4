"""fill, control and redux: what they condition on, and the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import manifest
from PIL import Image
from safetensors.torch import save_file
from tiny_parts import T5_WIDTH, TINY_AE, save_adapter
from tiny_programs import parts, tiny, tiny_params

from flux.__main__ import main as flux_main
from flux.conditions import canny, control_condition, fill_condition, to_tensor
from flux.modules.autoencoder import AutoEncoder
from flux.modules.image_embedders import ReduxAdapter, SiglipEncoder
from flux.sampler import pack
from toca.loading.pictures import read_picture
from toca.testing.parts import randomize, save_module

__all__ = ["parts", "tiny"]
STEPS = ["--num_steps", "6"]


def unsized(tiny: list[str]) -> list[str]:
    """The flags without a size, where a picture decides it."""
    return tiny[: tiny.index("--width")] + tiny[tiny.index("--device") :]


def written(folder: Path) -> np.ndarray:
    (path,) = folder.glob("img_*.jpg")
    return np.asarray(Image.open(path)).astype(int)


@pytest.fixture
def picture(tmp_path) -> str:
    """A bright square on a dark ground."""
    array = np.full((64, 96, 3), 20, np.uint8)
    array[16:48, 24:72] = 220
    Image.fromarray(array).save(tmp_path / "picture.png")
    return str(tmp_path / "picture.png")


# ---- tensors -----------------------------------------------------------------------------------------------------------------------


def test_fill_hides_what_is_to_be_painted():
    ae = randomize(AutoEncoder(TINY_AE))
    picture, mask = torch.rand(1, 3, 32, 48) * 2 - 1, torch.zeros(1, 1, 32, 48)
    mask[..., :16, :] = 1
    condition = fill_condition(picture, mask)(ae)
    assert condition.shape == (1, 6, 320)
    torch.testing.assert_close(condition[..., :64], pack(ae.encode(picture * (1 - mask))))
    assert condition[0, :3, 64:].eq(1).all() and condition[0, 3:, 64:].eq(0).all()
    changed = picture.clone()
    changed[..., :16, :] = 0.5
    assert torch.equal(fill_condition(changed, mask)(ae), condition)


def test_control_encodes_the_map():
    ae, picture = randomize(AutoEncoder(TINY_AE)), torch.rand(1, 3, 32, 48) * 2 - 1
    torch.testing.assert_close(control_condition(picture, torch.neg)(ae), pack(ae.encode(-picture)))


def test_canny_finds_the_outline_of_a_square(picture):
    edges = canny(2 * to_tensor(read_picture(picture)) - 1)
    assert edges.shape == (1, 3, 64, 96) and set(edges.unique().tolist()) == {-1.0, 1.0}
    rows, columns = np.nonzero(edges[0, 0].numpy() > 0)
    assert rows.min() in (15, 16) and rows.max() in (47, 48) and columns.min() in (23, 24) and columns.max() in (71, 72)
    assert len(rows) < 2 * (2 * 32 + 2 * 48)
    assert edges[0, 0, 20:44, 28:68].eq(-1).all()


def test_canny_follows_strong_edges_into_weak_ones_and_drops_the_weak_alone():
    flat = torch.full((1, 3, 32, 32), -1.0)
    fading = flat.clone()
    fading[..., 16:, :] = -1 + 2 * torch.linspace(0.2, 0.4, 32)  # 4 x the step: 204 to 408
    assert canny(fading)[0, 0].gt(0).any(dim=0).all()
    weak = flat.clone()
    weak[..., 16:] = -1 + 2 * 40 / 255  # 160 of 200
    assert canny(weak).eq(-1).all() and canny(flat).eq(-1).all()


def test_the_adapter_of_redux_has_the_published_keys():
    with torch.device("meta"):
        adapter = ReduxAdapter()
    assert {key: list(value.shape) for key, value in adapter.state_dict().items()} == manifest("redux")


# ---- commands ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["toca", "none"])
def test_fill(tmp_path, tiny, picture, method, capsys):
    Image.new("L", (96, 64), 255).save(tmp_path / "mask.png")
    flags = ["--img_cond_path", picture, "--img_mask_path", str(tmp_path / "mask.png"), "--output_dir", str(tmp_path / "out")]
    flux_main(["fill", *unsized(tiny), *flags, *STEPS, "--seed", "1", "--method", method])
    assert written(tmp_path / "out").shape == (64, 96, 3)
    assert f"{method}: " in capsys.readouterr().out


@pytest.mark.parametrize("name", ["flux-dev-canny", "flux-dev-canny-lora", "flux-dev-depth"])
@pytest.mark.parametrize("method", ["toca", "none"])
def test_control(tmp_path, tiny, picture, name, method):
    flags = ["--img_cond_path", picture, "--output_dir", str(tmp_path / "out"), "--name", name, "--method", method, "--seed", "1"]
    if name.endswith("lora"):
        flags += ["--lora", str(save_adapter(tmp_path / "lora.safetensors", tiny_params(name)))]
    if "depth" in name:
        flags += ["--img_is_map"]
    flux_main(["control", *tiny, *flags, *STEPS])
    assert written(tmp_path / "out").shape == (48, 64, 3)


def save_siglip(folder: Path) -> Path:
    from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    SiglipVisionModel(SiglipVisionConfig(**sizes)).save_pretrained(folder)
    SiglipImageProcessor(size=dict(height=28, width=28)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("method", ["toca", "none"])
def test_redux(tmp_path, tiny, picture, method):
    siglip = save_siglip(tmp_path / "siglip")
    assert SiglipEncoder(siglip).tokens == 4
    adapter = save_module(randomize(ReduxAdapter(16, T5_WIDTH)), tmp_path / "redux.safetensors")
    flags = [*tiny, *STEPS, "--seed", "1", "--method", method, "--siglip", str(siglip), "--redux", str(adapter)]
    Image.new("RGB", (30, 30), (200, 30, 60)).save(tmp_path / "other.png")
    for name, path in (("a", picture), ("b", str(tmp_path / "other.png"))):
        flux_main(["redux", *flags, "--img_cond_path", path, "--output_dir", str(tmp_path / name)])
    assert abs(written(tmp_path / "a") - written(tmp_path / "b")).max() > 5


def test_wrong_pictures_are_one_line(tmp_path, tiny, picture):
    (tmp_path / "text.png").write_text("no")
    Image.new("L", (64, 64)).save(tmp_path / "mask.png")
    wrong = {
        "not a picture": ["fill", "--img_cond_path", str(tmp_path / "text.png"), "--img_mask_path", picture],
        "must have one size": ["fill", "--img_cond_path", picture, "--img_mask_path", str(tmp_path / "mask.png")],
        "there is no such file": ["control", "--name", "flux-dev-canny", "--img_cond_path", str(tmp_path / "none.png")],
        "no depth model": ["control", "--name", "flux-dev-depth", "--img_cond_path", picture, "--annotator", str(tmp_path)],
        "no SigLIP encoder": ["redux", "--img_cond_path", picture, "--siglip", str(tmp_path), "--redux", str(tmp_path / "r.safetensors")],
    }
    save_file({"redux_up.weight": torch.zeros(1)}, tmp_path / "r.safetensors")
    for message, argv in wrong.items():
        with pytest.raises(SystemExit, match=message) as error:
            flux_main([*argv, *(unsized(tiny) if argv[0] == "fill" else tiny), "--output_dir", str(tmp_path / "out")])
        assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


def test_flops_of_every_command(tmp_path, picture, capsys):
    for argv in (["control", "--name", "flux-dev-canny"], ["redux"]):
        flux_main([*argv, "--img_cond_path", picture, "--test_FLOPs", "--output_dir", str(tmp_path / "out")])
    assert capsys.readouterr().out.count("matmul: ") == 2 and not (tmp_path / "out").exists()
