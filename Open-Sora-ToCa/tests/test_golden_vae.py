"""Every VAE case of the reference data: both encodings, and the way back."""

from __future__ import annotations

from functools import cache

import pytest
from golden_folder import CASES, read_json, tensors

from opensora.datasets.aspect import latent_size
from opensora.models.vae import VideoAutoencoderPipeline
from opensora.models.vae.vae import settings_of
from toca.loading.weights import load_into
from toca.testing.golden import assert_close

VAE_CASES = [name for name, case in CASES.items() if case["kind"] == "vae"]
INPUTS = {"x", "spatial_noise", "temporal_noise"}
OUTPUTS = {"z": 2e-5, "z_mode": 2e-5, "spatial_latent_mode": 2e-5, "decoded_from_z": 2e-4}  # with their tolerances


def config() -> dict:
    """The reference's configuration in the layout of a folder's config.json."""
    given = read_json("vae_config.json")
    assert (given.pop("micro_frame_size"), given.pop("scaling_factor_used")) == (17, 0.18215)
    temporal = given.pop("temporal_vae")
    assert temporal.pop("latent_embed_dim") == temporal.pop("embed_dim") == temporal["in_out_channels"]
    return dict(vae_2d=given.pop("spatial_vae (2D autoencoder)"), vae_temporal=temporal, **given)


@cache
def reference_vae(micro_batch_size: int) -> VideoAutoencoderPipeline:
    settings = config()
    assert settings.pop("micro_batch_size") == 4
    vae = VideoAutoencoderPipeline(micro_batch_size=micro_batch_size, **settings_of(settings)).eval()
    load_into(vae, tensors("vae_weights.safetensors"), "vae_weights")
    return vae


@pytest.mark.parametrize("micro_batch_size", [1, 4])
@pytest.mark.parametrize("name", VAE_CASES)
def test_vae_case(name: str, micro_batch_size: int) -> None:
    vae, data = reference_vae(micro_batch_size), tensors(f"{name}.safetensors")
    assert data.keys() == INPUTS | OUTPUTS.keys(), "tensors that this runner does not know"
    x, frames = data["x"], CASES[name]["num_frames"]
    mean, _ = vae.spatial_vae.encode(x.transpose(1, 2).flatten(0, 1))
    noises = iter((data["spatial_noise"], data["temporal_noise"]))
    found = dict(
        z=vae.encode(x, lambda shape: next(noises)),
        z_mode=vae.encode(x),
        spatial_latent_mode=0.18215 * mean.unflatten(0, (len(x), frames)).transpose(1, 2),
        decoded_from_z=vae.decode(data["z"], frames),
    )
    assert list(latent_size(frames, *x.shape[3:])) == list(found["z"].shape[2:]) == CASES[name]["latent_size_formula_result"]
    for key, tolerance in OUTPUTS.items():
        assert_close(found[key], data[key], tolerance, key)


def test_there_are_vae_cases() -> None:
    assert len(VAE_CASES) >= 2
