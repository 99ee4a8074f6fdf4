"""The published layout of the video autoencoder, loading, and memory that does not grow with the clip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_parts import VAE_SIZES, save_vae

from opensora.models.vae import OpenSoraVAE_V1_2, VideoAutoencoderPipeline
from opensora.models.vae.vae import settings_of

PUBLISHED = {  # config.json of the hub folder
    "architectures": ["VideoAutoencoderPipeline"], "cal_loss": False, "freeze_vae_2d": False, "from_pretrained": None,
    "micro_frame_size": 17, "model_type": "VideoAutoencoderPipeline", "scale": [3.85, 2.32, 2.33, 3.06], "shift": [-0.1, 0.34, 0.27, 0.98],
    "torch_dtype": "float32", "transformers_version": "4.36.2",
    "vae_2d": {"type": "VideoAutoencoderKL", "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers", "subfolder": "vae",
               "micro_batch_size": 4, "local_files_only": False},
    "vae_temporal": {"type": "VAE_Temporal_SD", "from_pretrained": None},
}  # fmt: skip


def test_the_published_configuration_is_the_published_checkpoint() -> None:
    with torch.device("meta"):
        vae = VideoAutoencoderPipeline(**settings_of(PUBLISHED))
    expected = json.loads((Path(__file__).parent / "golden" / "vae_keys.json").read_text())
    assert {key: list(value.shape) for key, value in vae.state_dict().items()} == expected
    parts = [sum(p.numel() for p in part.parameters()) for part in (vae.spatial_vae, vae.temporal_vae)]
    assert parts == [83_653_863, 309_687_144]


def test_a_folder_and_its_file_load_the_same_weights(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    vae = OpenSoraVAE_V1_2(from_pretrained=str(folder))
    saved = load_file(folder / "model.safetensors")
    assert not vae.training and saved.keys() == vae.state_dict().keys()
    assert all(torch.equal(value, saved[key]) for key, value in vae.state_dict().items())


def test_shards_load_as_one(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    state = load_file(folder / "model.safetensors")
    files = {key: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, key in enumerate(state)}
    for file in set(files.values()):
        save_file({key: value for key, value in state.items() if files[key] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=files)))
    assert torch.equal(OpenSoraVAE_V1_2(from_pretrained=str(folder)).state_dict()["scale"], state["scale"])
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="lacks model-00002"):
        OpenSoraVAE_V1_2(from_pretrained=str(folder))


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    state = load_file(folder / "model.safetensors")
    state["temporal_vae.surplus"] = state.pop("shift")
    save_file(state, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"missing: shift; unexpected: temporal_vae\.surplus"):
        OpenSoraVAE_V1_2(from_pretrained=str(folder))


@pytest.mark.parametrize("name", ["nowhere", "./owner/name", "absent/file.safetensors", "a/b/c"])
def test_a_missing_checkpoint_is_said_so(name: str) -> None:
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        OpenSoraVAE_V1_2(from_pretrained=name)


def test_an_unknown_size_is_said_so(tmp_path: Path) -> None:
    folder = save_vae(tmp_path / "vae")
    (folder / "config.json").write_text(json.dumps(dict(vae_temporal=dict(filtres=4))))
    with pytest.raises(ValueError, match="filtres"):
        OpenSoraVAE_V1_2(from_pretrained=str(folder))


@torch.no_grad()
def test_chunks_stand_alone() -> None:
    """Every 17 frames become five latents by themselves, so that no clip needs more memory than a chunk and its frames."""
    torch.manual_seed(0)
    vae = VideoAutoencoderPipeline(**VAE_SIZES).eval()
    clip = torch.rand(1, 3, 37, 16, 24) * 2 - 1
    seen = []
    vae.temporal_vae.encoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2]))
    vae.temporal_vae.decoder.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[2]))
    vae.spatial_vae.module.decoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    z = vae.encode(clip)
    torch.testing.assert_close(vae.encode(clip[:, :, 17:34]), z[:, :, 5:10])
    assert seen[:3] == [20, 20, 4]
    seen.clear()
    whole = vae.decode(z, 37)
    assert set(seen) <= {1, 2, 3, 4, 5} and whole.shape == clip.shape
    torch.testing.assert_close(vae.decode(z[:, :, 5:10], 17), whole[:, :, 17:34])


def test_a_wrong_number_of_frames_is_refused() -> None:
    vae = VideoAutoencoderPipeline(**VAE_SIZES)
    with pytest.raises(ValueError, match="51 frames have 15 latent frames, got 14"):
        vae.decode(torch.zeros(1, 4, 14, 2, 3), 51)
