from __future__ import annotations

import argparse
import os

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import LATENT, MINI8, SIXTEEN_STEPS, one_thread, random_dit, run, save_dit

import sample
from diffusion import create_diffusion
from dit.flags import parse
from dit.sampler import Sampler
from dit.spec import CONFIGS
from dit.upstream_stream import UpstreamStream
from toca.methods import DuCa, NoCaching, TaylorSeer, ToCa
from toca.runs.pictures import to_uint8
from toca.runs.seeds import item_generators
from toca.testing.parts import save_vae

__all__ = ["one_thread"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> str:
    return save_dit(tmp_path_factory.mktemp("weights") / "mini.safetensors")


def grid(tmp_path, *flags: str) -> np.ndarray:
    """The picture that sample.py writes."""
    path = tmp_path / "out" / "grid.png"
    sample.main(parse(sample.parser(), [*SIXTEEN_STEPS, "--output", str(path), "--device", "cpu", *flags]))
    assert os.listdir(path.parent) == [path.name]
    return np.asarray(Image.open(path)).astype(int)


def tile(picture: np.ndarray, index: int, size: int = 8) -> np.ndarray:
    """Picture `index` of a grid of four per row, two pixels apart."""
    top, left = 2 + index // 4 * (size + 2), 2 + index % 4 * (size + 2)
    return picture[top : top + size, left : left + size]


def mini(ckpt: str, *labels: int) -> list[str]:
    return ["--model", "DiT-mini", "--image-size", "8", "--ckpt", ckpt, "--class-labels", *map(str, labels or (0, 1, 2, 3, 4))]


# ---- the program -------------------------------------------------------------------------------------------------------------------


def test_a_grid_of_four_per_row(tmp_path, ckpt):
    assert grid(tmp_path, *mini(ckpt)).shape == (2 * 10 + 2, 4 * 10 + 2, 3)


def test_a_picture_depends_on_seed_index_and_label_alone(tmp_path, ckpt):
    five, three = grid(tmp_path, *mini(ckpt)), grid(tmp_path, *mini(ckpt, 0, 1, 7))
    assert abs(tile(five, 1) - tile(three, 1)).max() <= 1  # matmuls may round differently by batch
    assert abs(tile(five, 2) - tile(three, 2)).max() > 20
    assert abs(tile(five, 1) - tile(grid(tmp_path, *mini(ckpt), "--seed", "1"), 1)).max() > 20


def test_default_labels(ckpt):
    flags = mini(ckpt)[:6]
    assert sample.class_labels(parse(sample.parser(), flags)) == tuple(range(20))
    assert sample.class_labels(parse(sample.parser(), [])) == sample.IMAGENET


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_near(tmp_path, ckpt, dtype):
    flags = [*mini(ckpt), "--method", "none"]
    assert 0 < abs(grid(tmp_path, *flags) - grid(tmp_path, *flags, "--dtype", dtype)).mean() < 3


def test_flops_need_no_weights(capsys):
    flags = ["--preset", "toca3-ddim50", "--upstream-exact", "--class-labels", "1", "--test-FLOPs"]
    sample.main(parse(sample.parser(), flags))
    assert "upstream: 10.232809588736 TFLOPs for 1 image" in capsys.readouterr().out


def test_latents_are_decoded_by_a_vae(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "DiT-S/2", LATENT.replace(num_classes=1000))
    ckpt = save_dit(tmp_path / "s.safetensors", CONFIGS["DiT-S/2"])
    flags = ["--model", "DiT-S/2", "--image-size", "64", "--ckpt", ckpt, "--vae", save_vae(tmp_path / "vae")]
    picture = grid(tmp_path, *flags, "--class-labels", "999", "0")
    assert picture.shape == (66 + 2, 2 * 66 + 2, 3)
    assert tile(picture, 0, 64).std() > 1


ERRORS = {
    "steps 0": (["--num-sampling-steps", "0"], "must be 1 to 1000"),
    "steps 1001": (["--num-sampling-steps", "1001"], "must be 1 to 1000"),
    "guidance": (["--cfg-scale", "0.9"], "at least 1"),
    "guidance nan": (["--cfg-scale", "nan"], "at least 1"),
    "label": (["--class-labels", "3", "20"], r"\[20\] are outside 0..19"),
    "negative label": (["--class-labels", "-1"], r"\[-1\] are outside"),
    "odd size": (["--image-size", "9"], "multiple of 2"),
    "no size": (["--image-size", "0"], "at least 1"),
    "no classes": (["--num-classes", "0"], "at least 1"),
    "eta": (["--eta", "1.5"], "0 to 1"),
    "eta of DDPM": (["--eta", "0.5", "--no-ddim-sample"], "needs --ddim-sample"),
    "vae": (["--vae", "ema"], "works on pixels"),
    "device": (["--device", "nonsense"], "no such kind of device"),
    "no gpu": (["--device", "cuda:77"], "CUDA devices"),
    "output": (["--output", "sample"], "not the name of a picture"),
    "checkpoint": (["--ckpt", "absent.pt"], "no checkpoint absent.pt"),
    "official weights": (["--model", "DiT-XL/2", "--image-size", "64", "--class-labels", "1"], "no checkpoint|no official|does not fit"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_flag_is_one_line(name, ckpt):
    flags, message = ERRORS[name]
    with pytest.raises(SystemExit, match=message) as error:
        sample.main(parse(sample.parser(), [*SIXTEEN_STEPS, *mini(ckpt), *flags]))
    assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "flags",
    [
        ["--dtype", "fp8"],
        ["--cache-type", "straight"],
        ["--ratio-scheduler", "no"],
        ["--preset", "no"],
        ["--fresh-threshold", "0"],
        ["--fresh-ratio", "-1"],
        ["--max-order", "-1"],
    ],
)
def test_unknown_choices_are_refused(flags):
    with pytest.raises(SystemExit):
        parse(sample.parser(), flags)


def test_an_error_has_no_traceback():
    result = run("sample.py", "--model", "DiT-mini", "--cfg-scale", "0")
    assert result.returncode == 1
    assert result.stderr.splitlines() == ["error: --cfg-scale must be at least 1 (1 samples without guidance), got 0.0"]


# ---- checkpoints -------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_checkpoint_gives_the_same_picture(tmp_path, ckpt):
    state = load_file(ckpt)
    other = random_dit(seed=1).state_dict()
    torch.save(state, tmp_path / "official.pt")
    upstream = dict(model=other, ema=state, opt={"state": {}, "param_groups": []}, args=argparse.Namespace(model="DiT-XL/2", lr=1e-4))
    torch.save(upstream, tmp_path / "0050000.pt")
    expected = grid(tmp_path, *mini(ckpt))
    for name in ("official.pt", "0050000.pt"):
        assert np.array_equal(grid(tmp_path, *mini(str(tmp_path / name))), expected)


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path, ckpt):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({**load_file(ckpt), "x": Bomb()}, tmp_path / "bad.pt")
    with pytest.raises(SystemExit, match=r"error: .*bad\.pt is refused.*mkdir"):
        grid(tmp_path, *mini(str(tmp_path / "bad.pt")))
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_of_another_model_names_keys_and_shapes(tmp_path):
    wrong = save_dit(tmp_path / "wrong.safetensors", MINI8.replace(num_classes=7, depth=9))
    with pytest.raises(SystemExit, match=r"unexpected: blocks\.8.* y_embedder.embedding_table.weight is \(8, 128\), wanted \(21, 128\)"):
        grid(tmp_path, *mini(wrong))


def test_another_image_size_recomputes_the_positions_and_says_so(tmp_path, ckpt, capsys):
    big = save_dit(tmp_path / "big.safetensors", MINI8.replace(input_size=12))  # the same weights: only the fixed table differs
    expected = grid(tmp_path, *mini(big), "--image-size", "12")
    assert "recomputed" not in capsys.readouterr().out
    assert np.array_equal(grid(tmp_path, *mini(ckpt), "--image-size", "12"), expected)
    assert "holds 16 positions: recomputed for the 36 of --image-size 12" in capsys.readouterr().out
    flags = mini(ckpt)
    del flags[2:4]  # without --image-size loading is strict
    with pytest.raises(SystemExit, match=r"pos_embed is \(1, 16, 128\), wanted \(1, 256, 128\)"):
        grid(tmp_path, *flags)


# ---- the sampler -------------------------------------------------------------------------------------------------------------------


def sampler(method=None, steps=6, **options) -> Sampler:
    return Sampler(random_dit(LATENT), create_diffusion(str(steps)), method or NoCaching(), **options)


@pytest.mark.parametrize("method", [NoCaching(), ToCa(score="random"), DuCa(), TaylorSeer(interval=3, order=1)], ids=lambda m: m.name)
@pytest.mark.parametrize("ddim", [True, False])
@pytest.mark.parametrize("cfg_scale", [1.0, 1.5])
def test_a_batch_equals_its_singles(method, ddim, cfg_scale):
    s = sampler(method, ddim=ddim, cfg_scale=cfg_scale)
    labels = torch.tensor([0, 3, 3])
    together = s.sample(labels, item_generators(0, range(3)))
    alone = torch.cat([s.sample(labels[i : i + 1], item_generators(0, [i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4 * together.abs().max().item())
    assert (together[1] - together[2]).abs().max() > 1e-2


def test_guiding_all_channels_changes_the_fourth():
    def first_step(all_channels: bool) -> torch.Tensor:
        s = sampler(steps=1, guide_all_channels=all_channels, cfg_scale=4.0)
        return s.sample(torch.tensor([1]), item_generators(0, [0]))

    published, everything = first_step(False), first_step(True)
    assert torch.equal(published[:, :3], everything[:, :3]) and not torch.equal(published[:, 3], everything[:, 3])


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


def test_upstreams_stream_of_sample_py_draws_no_labels_and_always_guides(tmp_path, ckpt):
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
