from __future__ import annotations

import argparse
import os
import signal
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny import FORK, LATENT, MINI8, SIXTEEN_STEPS, one_thread, random_dit, refused, run, save_dit

import sample
from dit.flags import IMAGENET, class_labels, parse, sample_parser
from dit.spec import CONFIGS
from toca.testing import programs
from toca.testing.parts import save_vae

__all__ = ["one_thread"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> str:
    return save_dit(tmp_path_factory.mktemp("weights") / "mini.safetensors")


def grid(tmp_path, *flags: str) -> np.ndarray:
    """The picture that sample.py writes."""
    path = tmp_path / "out" / "grid.png"
    sample.main([*SIXTEEN_STEPS, "--output", str(path), "--device", "cpu", *flags])
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
    assert class_labels(parse(sample_parser(), flags)) == tuple(range(20))
    assert class_labels(parse(sample_parser(), [])) == IMAGENET


def test_flops_are_told_per_image_beside_the_uncached_and_the_published_run(capsys):
    sample.main(["--preset", "toca3-ddim50", "--class-labels", "1", "2", "--test-FLOPs"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[2:] == [
        "matmul: 11.133 TFLOPs per image, 2.13x less than uncached (23.724)",
        "upstream: 11.125 TFLOPs per image, 2.13x less than uncached (23.735)",
        "published (--upstream-exact, upstream counter): 10.233 TFLOPs per image, 2.32x less than uncached (23.735)",
    ]
    sample.main(["--preset", "fora3-ddim50", "--test-FLOPs"])
    assert "published" not in capsys.readouterr().out


@pytest.mark.parametrize("program", ["sample.py", "sample_ddp.py", "train.py", "demo.py", "download.py"])
def test_a_program_interrupted_while_it_starts_says_so(tmp_path, program):
    (tmp_path / "torch.py").write_text("import time; print('importing', flush=True); time.sleep(60)")
    flags = ["--data-path", "shapeworld", "--max-steps", "1"] if program == "train.py" else []
    line = programs.command(FORK / program, *flags)
    process = subprocess.Popen(line, env=programs.environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=30) == ("interrupted\n", "") and process.returncode == 130


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_stays_near(tmp_path, ckpt, dtype):
    flags = [*mini(ckpt), "--method", "none"]
    assert 0 < abs(grid(tmp_path, *flags) - grid(tmp_path, *flags, "--dtype", dtype)).mean() < 3


def test_flops_need_no_weights(capsys):
    flags = ["--preset", "toca3-ddim50", "--upstream-exact", "--class-labels", "1", "--test-FLOPs"]
    sample.main(flags)
    assert "upstream: 10.232809588736 TFLOPs for 1 image" in capsys.readouterr().out


def test_latents_are_decoded_by_a_vae(tmp_path, monkeypatch):
    monkeypatch.setitem(CONFIGS, "DiT-S/2", LATENT.replace(num_classes=1000))
    ckpt = save_dit(tmp_path / "s.safetensors", CONFIGS["DiT-S/2"])
    flags = ["--model", "DiT-S/2", "--image-size", "64", "--ckpt", ckpt, "--vae", save_vae(tmp_path / "vae")]
    picture = grid(tmp_path, *flags, "--class-labels", "999", "0")
    assert picture.shape == (66 + 2, 2 * 66 + 2, 3)
    assert tile(picture, 0, 64).std() > 1


ERRORS = {
    "steps 0": (["--num-sampling-steps", "0"], "must be a whole number of 1 to 1000"),
    "steps 1001": (["--num-sampling-steps", "1001"], "must be a whole number of 1 to 1000"),
    "guidance": (["--cfg-scale", "0.9"], "--cfg-scale: must be 1 to 1000"),
    "guidance nan": (["--cfg-scale", "nan"], "--cfg-scale: must be 1 to 1000"),
    "label": (["--class-labels", "3", "20"], r"\[20\] are outside 0..19"),
    "negative label": (["--class-labels", "-1"], "must be a whole number of 0 to"),
    "odd size": (["--image-size", "9"], "multiple of 2"),
    "no size": (["--image-size", "0"], "--image-size: must be a whole number of 1 to"),
    "no classes": (["--num-classes", "0"], "--num-classes: must be a whole number of 1 to"),
    "eta": (["--eta", "1.5"], "--eta: must be 0 to 1"),
    "eta of DDPM": (["--eta", "0.5", "--no-ddim-sample"], "needs --ddim-sample"),
    "vae": (["--vae", "ema"], "works on pixels"),
    "device": (["--device", "nonsense"], "no such kind of device"),
    "no gpu": (["--device", "cuda:77"], "CUDA devices"),
    "output": (["--output", "sample"], "not the name of a picture"),
    "checkpoint": (["--ckpt", "absent.pt"], "no checkpoint absent.pt"),
    "official weights": (["--model", "DiT-XL/2", "--image-size", "64", "--class-labels", "1"], "no checkpoint|no official|does not fit"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_flag_is_one_line(capsys, name, ckpt):
    flags, message = ERRORS[name]
    with refused(capsys, message):
        sample.main([*SIXTEEN_STEPS, *mini(ckpt), *flags])


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
        sample.main(flags)


def test_an_error_has_no_traceback():
    result = run("sample.py", "--model", "DiT-mini", "--cfg-scale", "0")
    assert result.returncode == 2
    assert result.stderr.splitlines() == ["sample.py: error: argument --cfg-scale: must be 1 to 1000, got '0'"]


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
