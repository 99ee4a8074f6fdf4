"""The random numbers of the published programs."""

from __future__ import annotations

import pytest
import torch
from tiny import one_thread, random_dit, save_dit

from diffusion import create_diffusion
from dit.sampler import Sampler
from dit.upstream_stream import UpstreamStream
from toca.runs.pictures import to_uint8

__all__ = ["one_thread"]
from test_sample import grid, mini, tile
from test_sampler import sampler

CPU = torch.device("cpu")


def reference_stream(s: Sampler, seed: int, batch: int, iterations: int) -> list[torch.Tensor]:
    """Upstream's loop as its script has it: one global generator, seeded once."""
    torch.manual_seed(seed)
    loop = s.diffusion.ddim_sample_loop if s.ddim else s.diffusion.p_sample_loop
    out = []
    for _ in range(iterations):
        z = torch.randn(batch, 4, 8, 8)
        y = torch.randint(0, 5, (batch,))
        model, kwargs = s.model.forward, dict(y=y)
        if s.cfg_scale > 1:
            z, y = torch.cat([z, z]), torch.cat([y, torch.tensor([5] * batch)])
            model, kwargs = s.model.forward_with_cfg, dict(y=y, cfg_scale=s.cfg_scale)
        out.append(loop(model, z.shape, z, model_kwargs=kwargs, upstream_noise=True)[:batch])
    return out


@pytest.mark.parametrize("ddim", [True, False])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_upstreams_stream(ddim, cfg_scale):
    s = sampler(ddim=ddim, cfg_scale=cfg_scale)
    expected = reference_stream(s, seed=7, batch=2, iterations=4)
    stream = UpstreamStream(s, 7, 2, CPU)
    for iteration in (0, 3):  # those between are drawn and thrown away
        torch.testing.assert_close(stream.sample(iteration), expected[iteration], rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="past iteration 1"):
        stream.sample(1)


def test_upstreams_stream_of_sample_py_draws_no_labels_and_always_guides(tmp_path):
    ckpt = save_dit(tmp_path / "mini.safetensors")
    flags = ["--upstream-stream", "--method", "none", "--no-ddim-sample", "--cfg-scale", "1", "--seed", "5"]
    picture = grid(tmp_path, *mini(ckpt, 3, 4), *flags)
    model = random_dit()
    torch.manual_seed(5)
    z, y = torch.randn(2, 3, 8, 8), torch.tensor([3, 4, 20, 20])
    with torch.no_grad():
        kwargs = dict(y=y, cfg_scale=1.0)
        x = create_diffusion("16").p_sample_loop(model.forward_with_cfg, (4, 3, 8, 8), torch.cat([z, z]), model_kwargs=kwargs)
    for index in range(2):
        assert abs(tile(picture, index) - to_uint8(x)[index].astype(int)).max() <= 1  # save_image rounds otherwise
