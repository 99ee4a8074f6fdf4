"""The autoencoder of Stable Diffusion."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from toca.loading.autoencoder import LATENT_SCALE, check_autoencoder, decoder, load_autoencoder
from toca.runs.pictures import to_uint8
from toca.testing.parts import save_vae

CPU = torch.device("cpu")


def test_latents_are_unscaled_and_decoded_each_by_itself(tmp_path: Path) -> None:
    vae = load_autoencoder(save_vae(tmp_path), CPU, "")
    latents = torch.randn(3, 4, 4, 2)
    pictures = decoder(vae, CPU)(latents)
    assert pictures.shape == (3, 3, 32, 16) and not pictures.requires_grad
    torch.testing.assert_close(pictures, vae.decode(latents / LATENT_SCALE).sample)


def test_another_autoencoder_or_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no VAE .*nowhere: get one there \("):
        load_autoencoder(str(tmp_path / "nowhere"), CPU, "get one there")
    with pytest.raises(ValueError, match="4 latent channels and stride 2; the model is made for 4 and 8"):
        load_autoencoder(save_vae(tmp_path, blocks=2), CPU, "")


def test_a_damaged_autoencoder_is_refused(tmp_path: Path) -> None:
    path = Path(save_vae(tmp_path)) / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    for changed, problem in (
        (
            {key: value for key, value in state.items() if key != "decoder.conv_out.bias"},
            r"lacks 1 of its tensors, first decoder.conv_out.bias",
        ),
        ({**state, "decoder.conv_out.bias": torch.full((3,), torch.nan)}, "the tensor decoder.conv_out.bias holds NaN"),
        ({**state, "decoder.conv_out.bias": torch.ones(5)}, "no VAE .*get one there"),
    ):
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=problem):
            load_autoencoder(str(tmp_path), CPU, "get one there")
    path.write_bytes(b"\x10")
    with pytest.raises(ValueError, match=r"no VAE .*: get one there \("):
        load_autoencoder(str(tmp_path), CPU, "get one there")


def test_pixels_are_rounded_as_published() -> None:
    values = torch.tensor([-2.0, -1.0, 0.0, 0.9999, 1.0, 2.0]).expand(1, 3, 1, 6)
    assert to_uint8(values)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255, 255]


def test_what_is_no_autoencoder_is_found_without_loading_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, shallow, cut = save_vae(tmp_path / "good"), save_vae(tmp_path / "shallow", blocks=2), Path(save_vae(tmp_path / "cut"))
    monkeypatch.setattr(diffusers, "AutoencoderKL", None)
    check_autoencoder(good, "")
    with pytest.raises(ValueError, match=r"no VAE .*nowhere: get one there \(.*has no config.json"):
        check_autoencoder(str(tmp_path / "nowhere"), "get one there")
    (config := Path(good) / "config.json").write_text(json.dumps({}), encoding="utf-8")
    with pytest.raises(ValueError, match="None latent channels and stride None; the model is made for 4 and 8"):
        check_autoencoder(good, "")
    config.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"config.json cannot be read"):
        check_autoencoder(good, "")
    with pytest.raises(ValueError, match="4 latent channels and stride 2; the model is made for 4 and 8"):
        check_autoencoder(shallow, "")
    weights = cut / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"no VAE .*damaged"):
        check_autoencoder(str(cut), "")
    weights.unlink()
    with pytest.raises(ValueError, match=r"no VAE .*holds no weights"):
        check_autoencoder(str(cut), "")


def test_a_hub_name_that_is_not_there_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no VAE nobody/nothing: get one there \("):
        check_autoencoder("nobody/nothing", "get one there")
