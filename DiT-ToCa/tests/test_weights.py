from __future__ import annotations

import pytest
import torch
from tiny import one_thread

import download
from dit import weights
from dit.flags import vae_name
from toca.runs.programs import program_errors
from toca.testing.parts import save_vae

__all__ = ["one_thread"]


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PRETRAINED", tmp_path / "pretrained_models")
    monkeypatch.setattr(weights, "MINI", tmp_path / "weights" / "DiT-mini.safetensors")
    (tmp_path / "pretrained_models").mkdir()
    return tmp_path


@pytest.mark.parametrize("size", [256, 512])
def test_official_files_are_found_or_explained(folders, size):
    name = f"DiT-XL-2-{size}x{size}.pt"
    with pytest.raises(FileNotFoundError) as error:
        weights.checkpoint_path("DiT-XL/2", size)
    expected = [name, weights.SOURCE + name, str(folders / "pretrained_models"), "`--model DiT-mini` runs without any"]
    assert all(part in str(error.value) for part in expected)
    (folders / "pretrained_models" / name).touch()
    assert weights.checkpoint_path("DiT-XL/2", size) == folders / "pretrained_models" / name
    assert weights.checkpoint_path("DiT-XL/2", size, name) == folders / "pretrained_models" / name


@pytest.mark.parametrize("model, size", [("DiT-S/8", 256), ("DiT-XL/2", 128)])
def test_models_without_official_weights_ask_for_ones_own(model, size):
    with pytest.raises(FileNotFoundError, match=f"no official weights for {model} at {size} .*--ckpt"):
        weights.checkpoint_path(model, size)


def test_the_embedded_model_and_ones_own_files(folders):
    with pytest.raises(FileNotFoundError, match="no checkpoint DiT-mini"):
        weights.checkpoint_path("DiT-mini", 32)
    weights.MINI.parent.mkdir()
    weights.MINI.touch()
    assert weights.checkpoint_path("DiT-mini", 32) == weights.MINI
    with pytest.raises(FileNotFoundError) as error:
        weights.checkpoint_path("DiT-mini", 32, "results/mine.pt")
    assert weights.SOURCE not in str(error.value)  # nobody publishes results/mine.pt


def test_download_fetches_what_is_missing(folders, monkeypatch, capsys):
    fetched = []
    monkeypatch.setattr(torch.hub, "download_url_to_file", lambda url, path: fetched.append((url, path)))
    (folders / "pretrained_models" / "DiT-XL-2-512x512.pt").touch()
    download.main([])
    assert fetched == [(weights.SOURCE + "DiT-XL-2-256x256.pt", str(folders / "pretrained_models" / "DiT-XL-2-256x256.pt"))]
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_missing_vae_is_explained_in_one_line(folders, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(
        "diffusers.AutoencoderKL.from_pretrained", lambda name, **_: (_ for _ in ()).throw(OSError(f"We couldn't connect\nto load {name}"))
    )
    with pytest.raises(SystemExit) as error, program_errors():
        weights.load_vae("mse", torch.device("cpu"))
    text = str(error.value)
    where = str(folders / "pretrained_models" / "sd-vae-ft-mse")
    assert all(part in text for part in ("stabilityai/sd-vae-ft-mse", "download.py --vae mse", where, "--model DiT-mini", "couldn't"))
    assert "\n" not in text


def test_a_folder_that_holds_no_vae_is_explained(tmp_path):
    with pytest.raises(ValueError, match="is it a diffusers folder"):
        weights.load_vae(str(tmp_path), torch.device("cpu"))


def test_a_vae_in_pretrained_models_needs_no_hub(folders):
    save_vae(folders / "pretrained_models" / "sd-vae-ft-ema")
    assert weights.load_vae("ema", torch.device("cpu")).config.latent_channels == 4
    assert weights.save_published("ema") == folders / "pretrained_models" / "sd-vae-ft-ema"


def test_a_vae_of_another_stride_is_refused(tmp_path):
    with pytest.raises(ValueError, match="stride 2"):
        weights.load_vae(save_vae(tmp_path / "vae", blocks=2), torch.device("cpu"))


def test_decoding_and_encoding(tmp_path):
    name, cpu = save_vae(tmp_path / "vae"), torch.device("cpu")
    decode, encode, model = weights.load_decoder(name, cpu), weights.load_encoder(name, cpu), weights.load_vae(name, cpu)
    latents = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(decode(latents), model.decode(latents / 0.18215).sample, atol=1e-5, rtol=1e-5)
        assert torch.equal(decode(latents)[1:2], decode(latents[1:2]))  # no picture depends on its batch
        pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
        posterior = model.encode(pixels).latent_dist
        torch.manual_seed(5)
        ours = encode(pixels)
        torch.manual_seed(5)
        torch.testing.assert_close(ours, 0.18215 * (posterior.mean + posterior.std * torch.randn(posterior.mean.shape)))
    assert not ours.requires_grad


def test_pixel_models_need_no_vae():
    x = torch.randn(2, 3, 4, 4)
    assert vae_name(None, 3, "ema") == "none" and vae_name(None, 4, "ema") == "ema" and vae_name("mse", 4, "ema") == "mse"
    assert weights.load_decoder("none", torch.device("cpu"))(x) is x and weights.load_encoder("none", torch.device("cpu"))(x) is x
    for name, channels in (("ema", 3), ("none", 4)):
        with pytest.raises(ValueError, match=f"--vae {name}"):
            vae_name(name, channels, "ema")
