from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_upstream_stream import reference_stream
from tiny import FORK, SIXTEEN_STEPS, one_thread, random_dit, refused, run, save_dit

import sample_ddp
from diffusion import create_diffusion
from dit import weights
from dit.flags import RunSettings, parse, sample_ddp_parser
from dit.pipeline import make_sampler
from dit.runs import sample_share
from dit.sampler import Sampler
from dit.spec import CONFIGS, DiTConfig
from dit.weights import load_decoder
from toca.methods import NoCaching
from toca.runs.pictures import to_uint8
from toca.runs.seeds import item_generators
from toca.testing.parts import save_vae
from toca.testing.programs import command, environment

__all__ = ["one_thread"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory) -> str:
    return save_dit(tmp_path_factory.mktemp("weights") / "mini.safetensors")


def flags(ckpt: str, root: Path, *more: str) -> list[str]:
    model = ["--model", "DiT-mini", "--image-size", "8", "--ckpt", ckpt, "--device", "cpu"]
    return [*model, *SIXTEEN_STEPS, "--num-fid-samples", "7", "--per-proc-batch-size", "2", "--sample-dir", str(root), *more]


def in_process(arguments: list[str], world: int = 1) -> Path:
    """Run the ranks of a world one after the other; returns the folder of pictures."""
    args = parse(sample_ddp_parser(), arguments)
    if world == 1:
        sample_ddp.main(arguments)
    settings = RunSettings.from_args(args)
    path = Path(args.sample_dir) / settings.folder_name()
    if world > 1:
        with contextlib.suppress(ValueError):  # the others' pictures are lacking
            sample_share(settings, path, 0, world, CPU)
        for rank in (*range(1, world), 0):  # at the end rank 0 finds nothing to sample, and writes the npz
            sample_share(settings, path, rank, world, CPU)
    return path


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("[0-9]*.png"))]).astype(int)


def npz(folder: Path) -> bytes:
    return folder.with_name(folder.name + ".npz").read_bytes()


# ---- names and layout --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, name",
    [
        (
            ["--ratio-scheduler", "ToCa-ddpm250"],
            "ToCa-DiT-XL-2-pretrained-size-256-vae-ema-cfg-1.5-seed-0-ddpm-step-250-num-50000"
            "-attention-0.07-ToCa-ddpm250-global-4-softweight-0.25",
        ),
        (
            ["--preset", "duca3-ddim50", "--image-size", "512"],
            "Cache-Noise-DiT-XL-2-pretrained-size-512-vae-ema-cfg-1.5-seed-0-ddim-step-50-num-50000"
            "-attention-0.05-ToCa-global-3-softweight-0.25",
        ),
        (
            ["--method", "taylorseer", "--ddim-sample", "--num-sampling-steps", "50"],
            "Taylor-DiT-XL-2-pretrained-size-256-vae-ema-cfg-1.5-seed-0-ddim-step-50-num-50000-4-4",
        ),
        (["--preset", "fora3-ddim50", "--vae", "mse"], "FORA-DiT-XL-2-pretrained-size-256-vae-mse-cfg-1.5-seed-0-ddim-step-50-num-50000-3"),
        (
            ["--method", "none", "--model", "DiT-mini", "--ckpt", "a/0001.pt", "--global-seed", "3", "--num-fid-samples", "8"],
            "DiT-mini-0001-size-32-vae-none-cfg-1.5-seed-3-ddpm-step-250-num-8",
        ),
    ],
)
def test_folder_names(monkeypatch, more, name):
    monkeypatch.setattr(weights, "checkpoint_path", lambda *args: Path("weights"))
    monkeypatch.setattr(weights, "check_checkpoint", lambda path, config, *args: config)
    monkeypatch.setattr(weights, "check_vae", lambda name: None)
    assert RunSettings.from_args(parse(sample_ddp_parser(), ["--device", "cpu", *more])).folder_name() == name


def test_files_npz_and_manifest(tmp_path, ckpt):
    folder = in_process(flags(ckpt, tmp_path, "--fresh-threshold", "3"))
    assert sorted(os.listdir(folder)) == [".lock"] + [f"{i:06d}.png" for i in range(7)] + ["manifest.json"]
    with np.load(folder.with_name(folder.name + ".npz")) as data:
        assert data.files == ["arr_0"] and data["arr_0"].dtype == np.uint8 and data["arr_0"].shape == (7, 8, 8, 3)
        assert np.array_equal(data["arr_0"], pictures(folder))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["settings"]["method"]["name"] == "toca" and manifest["settings"]["method"]["interval"] == 3
    assert manifest["settings"]["image_size"] == 8 and manifest["num_images"] == 7
    assert len(manifest["step_kinds"]) == 16 == sum(manifest["steps"].values()) and manifest["flops_speedup"] > 1
    assert manifest["runs"][0]["seconds"] > 0 and "torch" in manifest["versions"]


def test_labels_and_noise_come_from_seed_and_index(tmp_path, ckpt):
    folder = in_process(flags(ckpt, tmp_path, "--global-seed", "4", "--method", "none"))
    settings = RunSettings.from_args(parse(sample_ddp_parser(), flags(ckpt, tmp_path, "--method", "none")))
    (generator,) = item_generators(4, [5])
    label = torch.randint(20, (1,), generator=generator)
    expected = to_uint8(make_sampler(settings, random_dit()).sample(label, [generator]))[0]
    assert abs(pictures(folder)[5] - expected).max() <= 1


def test_flops_need_no_weights(capsys):
    sample_ddp.main(["--preset", "ddpm250", "--per-proc-batch-size", "2", "--test-FLOPs"])
    assert f"upstream: {2 * 118.676406016} TFLOPs for 2 image(s)" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, message",
    [
        (["--per-proc-batch-size", "0"], "--per-proc-batch-size: must be a whole number of 1 to"),
        (["--num-fid-samples", "0"], "--num-fid-samples: must be a whole number of 1 to"),
        (["--cfg-scale", "0.5"], "--cfg-scale: must be 1 to 1000"),
        (["--num-sampling-steps", "0"], "must be a whole number of 1 to 1000"),
        (["--ckpt", "absent.pt"], "no checkpoint absent.pt"),
        (["--sample-dir", "/dev/null"], "/dev/null"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, tmp_path, ckpt, more, message):
    with refused(capsys, message):
        sample_ddp.main(flags(ckpt, tmp_path, *more))


def test_another_checkpoint_of_the_same_name_is_refused(tmp_path, ckpt):
    in_process(flags(ckpt, tmp_path))
    (tmp_path / "other").mkdir()
    other = save_dit(tmp_path / "other" / Path(ckpt).name, seed=1)
    with pytest.raises(SystemExit, match=r"other settings .*fingerprint"):
        in_process(flags(other, tmp_path))


# ---- worlds, batches, kills --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["none", "toca", "duca", "taylorseer"])
def test_worlds_and_batches_give_the_same_pictures(tmp_path, ckpt, method):
    random = ["--cache-type", "random"] if method in ("toca", "duca") else []
    one = in_process(flags(ckpt, tmp_path / "1", "--method", method, *random, "--per-proc-batch-size", "7"))
    two = in_process(flags(ckpt, tmp_path / "2", "--method", method, *random, "--per-proc-batch-size", "3"), world=2)
    assert abs(pictures(one) - pictures(two)).max() <= 1  # to the bit only in a process of its own, see the next test


def wait_for(folder: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while len(list(folder.glob("[0-9]*.png"))) < count:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)


def test_killed_and_resumed_by_two_processes_gives_the_same_bytes(tmp_path, ckpt):
    more = ["--num-sampling-steps", "60", "--num-fid-samples", "9"]
    unbroken = run("sample_ddp.py", *flags(ckpt, tmp_path / "unbroken", *more, "--per-proc-batch-size", "4"))
    assert unbroken.returncode == 0, unbroken.stderr
    (done,) = (tmp_path / "unbroken").glob("*.npz")

    folder = tmp_path / "killed" / done.stem
    program = command(FORK / "sample_ddp.py", *flags(ckpt, tmp_path / "killed", *more, "--per-proc-batch-size", "1"))
    process = subprocess.Popen(program, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(folder, 3, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    made = sorted(folder.glob("[0-9]*.png"))
    assert 3 <= len(made) < 9 and not list((tmp_path / "killed").glob("*.npz"))
    for path in made:
        Image.open(path).load()  # none is half a file
    (folder / ".000008.0123abcd.part.png").write_bytes(b"half")
    (tmp_path / "killed" / f".{done.stem}.0123abcd.part.npz").write_bytes(b"half")

    resumed = run("sample_ddp.py", *flags(ckpt, tmp_path / "killed", *more, "--per-proc-batch-size", "2"), processes=2)
    assert resumed.returncode == 0, resumed.stderr
    assert npz(folder) == done.read_bytes()
    assert sorted(os.listdir(tmp_path / "killed")) == sorted([folder.name, done.name])
    assert sorted(os.listdir(folder)) == [".lock"] + [f"{i:06d}.png" for i in range(9)] + ["manifest.json"]


def test_latents_are_decoded_by_a_vae_alike_in_any_batch(tmp_path, monkeypatch):
    config = DiTConfig(depth=2, hidden_size=32, num_heads=2, patch_size=2, num_classes=1000)
    monkeypatch.setitem(CONFIGS, "DiT-S/2", config)
    ckpt, vae = save_dit(tmp_path / "s.safetensors", config.replace(input_size=8)), save_vae(tmp_path / "vae")
    more = ["--model", "DiT-S/2", "--image-size", "64", "--vae", vae, "--num-fid-samples", "3"]
    one, two = (in_process(flags(ckpt, tmp_path / str(batch), *more, "--per-proc-batch-size", str(batch))) for batch in (1, 3))
    assert abs(pictures(one) - pictures(two)).max() <= 1
    assert pictures(one).shape == (3, 64, 64, 3) and pictures(one).std() > 1


# ---- upstream's random stream ------------------------------------------------------------------------------------------------------


@pytest.fixture
def latent_model(tmp_path, monkeypatch) -> list[str]:
    """Flags of a model on latents (5 classes), and of a VAE."""
    config = DiTConfig(depth=2, hidden_size=32, num_heads=2, patch_size=2, num_classes=1000)
    monkeypatch.setitem(CONFIGS, "DiT-S/2", config)
    ckpt = save_dit(tmp_path / "s.safetensors", config.replace(input_size=8, num_classes=5))
    model = ["--model", "DiT-S/2", "--num-classes", "5", "--image-size", "64", "--vae", save_vae(tmp_path / "vae")]
    return flags(ckpt, tmp_path / "samples", *model)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_upstreams_stream(latent_model, tmp_path, sampler):
    ddim = sampler == "ddim"
    more = ["--upstream-stream", "--method", "none", "--global-seed", "3", "--num-sampling-steps", "5"]
    folder = in_process([*latent_model, *more, "--ddim-sample" if ddim else "--no-ddim-sample"], world=2)

    s = Sampler(random_dit(DiTConfig(2, 32, 2, 2, input_size=8, num_classes=5)), create_diffusion("5"), NoCaching(), ddim=ddim)
    decode, expected = load_decoder(str(tmp_path / "vae"), CPU), {}
    for rank in range(2):
        for iteration, latents in enumerate(reference_stream(s, seed=3 * 2 + rank, batch=2, iterations=2)):
            for i, picture in enumerate(to_uint8(decode(latents))):
                expected[i * 2 + rank + iteration * 2 * 2] = picture
    assert len(expected) == 8
    assert sorted(path.name for path in folder.glob("[0-9]*.png")) == [f"{i:06d}.png" for i in range(7)]  # the surplus is not written
    assert abs(pictures(folder) - np.stack([expected[i] for i in range(7)])).max() <= 1


def test_upstreams_stream_resumes_where_it_was(latent_model):
    arguments = [*latent_model, "--upstream-stream", "--no-ddim-sample"]
    folder = in_process(arguments, world=2)
    whole, before = npz(folder), pictures(folder)
    (folder / "000005.png").unlink()  # second iteration of rank 1: its first must be drawn again, but not sampled
    in_process(arguments, world=2)
    assert npz(folder) == whole
    shutil.copy(folder / "000000.png", folder / "000006.png")
    assert not np.array_equal(pictures(folder), before)  # the comparison can fail


def test_upstreams_stream_refuses_another_split(latent_model):
    arguments = [*latent_model, "--upstream-stream"]
    in_process(arguments, world=2)
    with pytest.raises(SystemExit, match="processes was 2, now 1"):
        in_process(arguments)
