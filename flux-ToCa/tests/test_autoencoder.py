from __future__ import annotations

import json

import pytest
import torch
from golden_data import GOLDEN, manifest
from safetensors.torch import load_file
from tiny_parts import TINY_AE

from flux import layouts
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from toca.loading.weights import load_into
from toca.testing.parts import randomize


@pytest.fixture(scope="module")
def case() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "ae_case.safetensors")


@pytest.fixture(scope="module")
def golden_ae() -> AutoEncoder:
    known = json.loads((GOLDEN / "config.json").read_text())["ae"]["ae_params"]
    known.pop("resolution")  # of the training data
    ae = AutoEncoder(AutoEncoderParams(**known | dict(ch_mult=tuple(known["ch_mult"])))).requires_grad_(False)
    load_into(ae, load_file(GOLDEN / "ae_weights.safetensors"), "golden")
    return ae


def test_keys_and_shapes_are_the_published_ones():
    with torch.device("meta"):
        ae = AutoEncoder(AutoEncoderParams())
    assert {key: list(value.shape) for key, value in ae.state_dict().items()} == manifest("ae")
    assert len(ae.state_dict()) == 244
    assert sum(p.numel() for p in ae.parameters()) == 83_819_683
    assert sum(p.numel() for p in ae.decoder.parameters()) == 49_545_475


def test_golden_moments_latents_and_picture(golden_ae, case):
    near = dict(rtol=0, atol=2e-5)
    torch.testing.assert_close(golden_ae.encoder(case["x"]), case["moments"], **near)
    torch.testing.assert_close(golden_ae.encode(case["x"]), case["z_mean_scaled"], **near)
    torch.testing.assert_close(golden_ae.decode(case["z_mean_scaled"]), case["decoded"], **near)
    golden_ae.sample_z = True
    torch.testing.assert_close(golden_ae.encode(case["x"], eps=case["eps"]), case["z_sampled_scaled"], **near)
    torch.manual_seed(3)
    drawn = golden_ae.encode(case["x"])
    torch.manual_seed(3)
    torch.testing.assert_close(golden_ae.encode(case["x"], eps=torch.randn_like(case["eps"])), drawn)
    golden_ae.sample_z = False


def test_a_batch_equals_its_singles(golden_ae, case):
    z = case["z_mean_scaled"]
    assert torch.equal(golden_ae.decode(z), torch.cat([golden_ae.decode(one[None]) for one in z]))


def test_diffusers_agrees():
    from diffusers import AutoencoderKL

    params = AutoEncoderParams(ch=32, ch_mult=(1, 2, 2), num_res_blocks=2, z_channels=16)
    theirs = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=[32, 64, 64],
        layers_per_block=2,
        latent_channels=16,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    randomize(theirs)
    ours = AutoEncoder(params).requires_grad_(False).eval()
    load_into(ours, layouts.autoencoder(theirs.state_dict()), "diffusers")
    x = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        moments = theirs.encode(x).latent_dist.parameters
        z = ours.encode(x)
        picture = theirs.decode(z / params.scale_factor + params.shift_factor).sample
    torch.testing.assert_close(ours.encoder(x), moments, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.decode(z), picture, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 24), (8, 16)])
def test_the_stride_is_eight(size):
    ae = randomize(AutoEncoder(TINY_AE))
    assert ae.stride == 8
    z = ae.encode(torch.zeros(1, 3, *size))
    assert z.shape == (1, 16, size[0] // 8, size[1] // 8)
    assert ae(torch.zeros(1, 3, *size)).shape == (1, 3, *size)
