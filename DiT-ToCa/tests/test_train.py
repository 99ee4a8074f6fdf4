from __future__ import annotations

import errno
import json
import math
import shutil
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file
from tiny import FORK, MINI8, one_thread, refused, run, save_dit

import train
from dit.model import DiT
from dit.training import data
from dit.training.data import ImageFolderData, Pictures, ShapeWorld, Shuffled, Split, center_crop
from dit.training.experiment import Log, open_folder
from dit.training.flags import TrainSettings, train_parser
from dit.training.train import learning_rate, warm_start
from toca.loading.weights import load_checkpoint, load_into, load_state_dict
from toca.testing import programs

__all__ = ["one_thread"]
MODEL = ["--model", "DiT-mini", "--image-size", "8", "--patch-size", "4", "--device", "cpu"]
SMALL = [*MODEL, "--global-batch-size", "4", "--num-workers", "0"]
WORLD = [*SMALL, "--data-path", "shapeworld", "--log-every", "2", "--ckpt-every", "2", "--lr", "1e-3"]


def training(results: Path, *flags: str) -> Path:
    """Train in this process and return the run's folder."""
    before = set(results.glob("*"))
    train.main([*flags, "--results-dir", str(results)])
    return next(iter(set(results.glob("*")) - before), None)


def resumed(folder: Path, step: int, *flags: str) -> Path:
    """A copy of a run whose last line and checkpoints after `step` are as a killed run leaves them, trained to its end."""
    copy = folder.parent / "resumed" / folder.name
    shutil.copytree(folder, copy)
    for path in (copy / "checkpoints").iterdir():
        if int(path.stem) > step:
            path.unlink()
    (copy / "checkpoints" / ".0000004.0123abcd.part.pt").write_bytes(b"half")
    with open(copy / "log.jsonl", "a") as log:
        log.write('{"step": 6, "los')
    train.main([*flags, "--resume", str(copy / "checkpoints" / f"{step:07d}.pt")])
    return copy


def assert_equal_runs(one: Path, other: Path) -> None:
    assert sorted(p.name for p in (one / "checkpoints").iterdir()) == sorted(p.name for p in (other / "checkpoints").iterdir())
    last = max((one / "checkpoints").glob("*.pt")).name
    a, b = load_checkpoint(one / "checkpoints" / last), load_checkpoint(other / "checkpoints" / last)
    assert a["step"] == b["step"] and len(a["opt"]) == len(b["opt"])
    pairs = [(a[key], b[key]) for key in ("model", "ema")]
    pairs += [(x["state"][i], y["state"][i]) for x, y in zip(a["opt"], b["opt"], strict=True) for i in x["state"]]
    for x, y in pairs:
        assert x.keys() == y.keys() and all(torch.equal(x[key], y[key]) for key in x)
    assert losses(one) == losses(other)


def losses(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["mse"]) for line in lines]


@pytest.fixture
def images(tmp_path) -> Path:
    """11 pictures of different shapes in 2 classes."""
    folder, rng = tmp_path / "images", np.random.default_rng(0)
    for index in range(11):
        path = folder / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (17 + index, 30 - index, 3), dtype=np.uint8)).save(path)
    return folder


# ---- runs --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        [],
        ["--optimizer", "muon", "--warmup-steps", "3", "--cooldown", "0.3"],
        ["--mixed-precision", "bf16", "--timestep-sampler", "logit-normal", "--timestep-mean", "-0.4", "--timestep-std", "0.7"],
    ],
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, more):
    flags = [*WORLD, "--max-steps", "5", *more]
    folder = training(tmp_path / "results", *flags)
    assert [step for step, _, _ in losses(folder)] == [2, 4, 5] and all(math.isfinite(mse) for _, _, mse in losses(folder))
    assert_equal_runs(folder, resumed(folder, 2, *flags))


def test_mixed_precision_rounds_and_no_more(tmp_path):
    plain, mixed = (losses(training(tmp_path / name, *WORLD, "--max-steps", "4", "--mixed-precision", name))[-1] for name in ("no", "bf16"))
    assert mixed != plain and mixed[2] == pytest.approx(plain[2], rel=0.02)


@pytest.mark.parametrize("wrong", [["--timestep-mean", "-0.4"], ["--timestep-sampler", "logit-normal", "--timestep-std", "0"]])
def test_the_shape_of_a_timestep_sampler_is_checked(capsys, tmp_path, wrong):
    with refused(capsys, "--timestep-"):
        training(tmp_path / "results", *WORLD, "--max-steps", "1", *wrong)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_on_images_resumes_within_an_epoch_and_ends_with_its_epochs(tmp_path, images, workers):
    flags = [*SMALL, "--data-path", str(images), "--epochs", "3", "--ckpt-every", "1", "--log-every", "1", "--num-workers", workers]
    folder = training(tmp_path / "results", *flags)
    assert [step for step, _, _ in losses(folder)] == [1, 2, 3, 4, 5, 6]  # 11 pictures are 2 batches of 4
    assert_equal_runs(folder, resumed(folder, 3, *flags))


def test_max_steps_ends_a_run_on_images_early(tmp_path, images):
    folder = training(tmp_path / "results", *SMALL, "--data-path", str(images), "--max-steps", "3")
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["0000003.pt", "0000003.safetensors"]


def test_two_processes_resume_exactly(tmp_path):
    flags = [*WORLD, "--max-steps", "4", "--results-dir", str(tmp_path / "results")]
    result = run("train.py", *flags, processes=2)
    assert result.returncode == 0, result.stderr
    (folder,) = (tmp_path / "results").iterdir()
    copy = tmp_path / "copy" / folder.name
    shutil.copytree(folder, copy)
    for path in (copy / "checkpoints").glob("0000004*"):
        path.unlink()
    result = run("train.py", *flags, "--resume", str(copy / "checkpoints" / "0000002.pt"), processes=2)
    assert result.returncode == 0, result.stderr
    assert_equal_runs(folder, copy)


def test_training_learns(tmp_path):
    flags = [*WORLD, "--max-steps", "60", "--log-every", "20", "--ckpt-every", "60", "--lr", "3e-3"]
    first, _, last = losses(training(tmp_path / "results", *flags))
    assert last[2] < 0.8 * first[2]


def test_a_finished_run_is_left_as_it_is(tmp_path):
    folder = training(tmp_path / "results", *WORLD, "--max-steps", "2")
    before = (folder / "checkpoints" / "0000002.pt").read_bytes()
    train.main([*WORLD, "--max-steps", "2", "--resume", str(folder / "checkpoints" / "0000002.pt")])
    assert (folder / "checkpoints" / "0000002.pt").read_bytes() == before and len(losses(folder)) == 1


def test_checkpoints_are_plain_and_load_strictly(tmp_path):
    folder = training(tmp_path / "results", *WORLD, "--max-steps", "2", "--ema-decay", "0.5")
    assert folder.name == "000-DiT-mini"
    state = torch.load(folder / "checkpoints" / "0000002.pt", weights_only=True)
    assert sorted(state) == ["args", "ema", "model", "opt", "step"] and state["args"]["lr"] == 1e-3 and isinstance(state["args"], dict)
    ema = load_state_dict(folder / "checkpoints" / "0000002.pt")
    assert all(torch.equal(ema[key], value) for key, value in load_file(folder / "checkpoints" / "0000002.safetensors").items())
    load_into(DiT(MINI8.replace(patch_size=4)), ema, "")
    weight = "blocks.0.adaLN_modulation.1.bias"
    assert not torch.equal(state["model"][weight], ema[weight]) and ema[weight].abs().max() > 0
    assert training(tmp_path / "results", *WORLD, "--max-steps", "1").name == "001-DiT-mini"


def test_a_warm_start_takes_what_fits(tmp_path, capsys):
    ckpt = save_dit(tmp_path / "fine.safetensors", MINI8)  # patch size 2; ours is 4
    model = DiT(MINI8.replace(patch_size=4))
    own, given = {key: value.clone() for key, value in model.state_dict().items()}, load_state_dict(ckpt)
    assert warm_start(model, ckpt).endswith(f"{len(own) - 4} of {len(own)} tensors")
    changed = {key for key, value in model.state_dict().items() if torch.equal(value, given.get(key)) and not torch.equal(value, own[key])}
    kept = {"pos_embed", "x_embedder.proj.weight", "final_layer.linear.weight", "final_layer.linear.bias"}
    assert changed == own.keys() - kept


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "shapeworld is endless: give --max-steps"),
        (["--max-steps", "0"], "--max-steps: must be a whole number of 1 to"),
        (["--max-steps", "1", "--global-batch-size", "0"], "--global-batch-size: must be a whole number of 1 to"),
        (["--max-steps", "1", "--image-size", "10"], "--patch-size 4 does not divide"),
        (["--max-steps", "1", "--vae", "ema"], "works on pixels"),
        (["--max-steps", "1", "--num-classes", "7"], "has 20 classes, the model 7"),
        (["--max-steps", "1", "--resume", "absent/checkpoints/1.pt"], "absent/checkpoints/1.pt"),
        (["--data-path", "absent"], "absent"),
    ],
)
def test_a_wrong_flag_is_one_line(capsys, tmp_path, flags, message):
    with refused(capsys, message):
        training(tmp_path, *WORLD, *flags)


def test_what_cannot_be_resumed_is_explained(tmp_path, images, capsys):
    folder = training(tmp_path / "results", *WORLD, "--max-steps", "1")
    ckpt = str(folder / "checkpoints" / "0000001.pt")
    training(tmp_path / "elsewhere", *WORLD, "--max-steps", "1", "--resume", ckpt)
    assert f"goes on in its own folder, {folder}; --results-dir {tmp_path / 'elsewhere'} is for new ones" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="another --optimizer"):
        training(tmp_path, *WORLD, "--max-steps", "2", "--optimizer", "muon", "--resume", ckpt)
    with pytest.raises(SystemExit, match=r"x_embedder.proj.weight is \(128, 3, 4, 4\), wanted \(128, 3, 2, 2\)"):
        training(tmp_path, *WORLD, "--max-steps", "2", "--patch-size", "2", "--resume", ckpt)
    with pytest.raises(SystemExit, match="cannot be resumed, it lacks opt, step; --init"):
        torch.save({key: load_checkpoint(ckpt)[key] for key in ("model", "ema")}, ckpt)
        training(tmp_path, *WORLD, "--max-steps", "2", "--resume", ckpt)
    with pytest.raises(SystemExit, match="holds 11 images: fewer than one global batch of 12"):
        training(tmp_path, *SMALL, "--data-path", str(images), "--global-batch-size", "12")


def test_a_run_with_other_settings_is_not_resumed(capsys, tmp_path, images):
    folder = training(tmp_path / "results", *WORLD, "--max-steps", "2")
    ckpt = folder / "checkpoints" / "0000002.pt"
    for flags, message in (
        (["--global-batch-size", "8"], "global_batch_size was 4, now 8"),
        (["--global-seed", "1"], "global_seed was 0, now 1"),
        (["--mixed-precision", "bf16"], "mixed_precision was no, now bf16"),
        (["--timestep-sampler", "logit-normal"], "timestep_sampler was uniform, now logit-normal"),
        (["--data-path", str(images)], "data_path was shapeworld, now"),
        (["--init", str(ckpt)], "--init starts a new run, and --resume goes on with one"),
    ):
        with refused(capsys, message):
            train.main([*WORLD, "--max-steps", "4", *flags, "--resume", str(ckpt)])
    shutil.copy(ckpt, tmp_path / "moved.pt")
    with refused(capsys, "lies in no folder checkpoints of a run"):
        train.main([*WORLD, "--max-steps", "4", "--resume", str(tmp_path / "moved.pt")])
    assert sorted(path.name for path in ckpt.parent.iterdir()) == ["0000002.pt", "0000002.safetensors"] and len(losses(folder)) == 1
    more = ["--lr", "1e-4", "--cooldown", "0.5", "--ema-decay", "0.5", "--ckpt-every", "1"]  # how it goes on may change
    train.main([*WORLD, "--max-steps", "3", *more, "--resume", str(ckpt)])
    assert (ckpt.parent / "0000003.pt").exists()


def test_two_runs_that_start_at_once_take_two_folders(tmp_path):
    settings = TrainSettings.from_args(train_parser().parse_args([*WORLD, "--max-steps", "2", "--results-dir", str(tmp_path)]))
    with open_folder(settings) as one, open_folder(settings) as two:
        assert (one.name, two.name) == ("000-DiT-mini", "001-DiT-mini")
        again = replace(settings, resume=str(one / "checkpoints" / "1.pt"))
        with pytest.raises(ValueError, match="another run is at work in"), open_folder(again):
            pass
    with open_folder(again) as resumed:
        assert resumed == one.resolve()


def test_a_full_disk_ends_a_run_in_one_line_and_leaves_whole_files(capsys, tmp_path, monkeypatch):
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def full_too(*args: object) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    for name, fails in (("torch.save", full), ("dit.training.experiment.save_file", full_too)):
        with monkeypatch.context() as patch, refused(capsys, "the disk is full .* finished checkpoints stay"):
            patch.setattr(name, fails)
            training(tmp_path / "results", *WORLD, "--max-steps", "2")
    assert [path.suffix for path in (tmp_path / "results").glob("*/checkpoints/*")] == [".safetensors"]
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1_000_000))
    with refused(capsys, r"--results-dir .*: this run writes about 49.6 MB, and the disk has 1\.0 MB free"):
        training(tmp_path / "none", *WORLD, "--max-steps", "2")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("sent, status, word", [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")])
def test_a_run_that_is_stopped_says_what_stays(tmp_path, sent, status, word):
    flags = [*WORLD, "--max-steps", "100000", "--log-every", "1", "--results-dir", str(tmp_path)]
    line = programs.command(FORK / "train.py", *flags)
    process = subprocess.Popen(line, env=programs.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while '"step": 2' not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(sent)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status and "Traceback" not in err, err
    assert out.splitlines()[-1] == f"{word}: finished checkpoints stay, and --resume goes on from the last"


def test_a_loss_that_is_not_finite_ends_the_run(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("dit.training.data.to_tensor", lambda pictures: torch.full((4, 3, 8, 8), float("nan")))
    with refused(capsys, "the loss is not finite at step 2: try a smaller --lr"):
        training(tmp_path / "results", *WORLD, "--max-steps", "2")
    assert not list((tmp_path / "results").glob("*/checkpoints/*"))


def test_a_damaged_picture_is_named(capsys, tmp_path, images):
    for path in images.glob("*/*.png"):  # an epoch of two batches leaves some out
        path.write_bytes(b"no picture")
    for workers in ("0", "1"):
        with refused(capsys, r"/\d+\.png cannot be read as a picture"):
            training(tmp_path / "results", *SMALL, "--data-path", str(images), "--epochs", "1", "--num-workers", workers)


def test_a_damaged_log_is_named(capsys, tmp_path):
    folder = training(tmp_path / "results", *WORLD, "--max-steps", "2")
    (folder / "log.jsonl").write_text('{"stop": 1}\n')
    with refused(capsys, r"log\.jsonl is damaged, line 1"):
        train.main([*WORLD, "--max-steps", "4", "--resume", str(folder / "checkpoints" / "0000002.pt")])


def test_the_learning_rate_rises_stays_and_falls():
    args = train_parser().parse_args([*WORLD, "--lr", "1", "--warmup-steps", "4", "--cooldown", "0.5", "--max-steps", "20"])
    settings = TrainSettings.from_args(args)
    rates = [learning_rate(step, 20, settings) for step in range(20)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1] and rates[4:11] == [1] * 7
    assert rates[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1])
    settings = replace(settings, cooldown=0.0, warmup_steps=0)
    assert {learning_rate(step, 20, settings) for step in range(20)} == {1}


def test_the_log_averages_over_the_steps_since_its_last_line(tmp_path):
    log = Log(tmp_path / "log.jsonl", step=4, images_per_step=8)
    log.write(7, torch.tensor([6.0, 3.0]))
    log.write(8, torch.tensor([6.0, 3.0]))
    assert losses(tmp_path) == [(7, 2.0, 1.0), (8, 6.0, 3.0)]
    Log(tmp_path / "log.jsonl", step=7, images_per_step=8)
    assert losses(tmp_path) == [(7, 2.0, 1.0)]


# ---- data --------------------------------------------------------------------------------------------------------------------------


def test_scenes_do_not_depend_on_the_split():
    whole = next(ShapeWorld(8, Split(batch=4, seed=1)).batches(2))
    halves = [next(ShapeWorld(8, Split(batch=2, rank=rank, world=2, seed=1)).batches(2)) for rank in range(2)]
    for k in range(2):
        assert torch.equal(whole[k], torch.cat([half[k] for half in halves]))
    assert whole[0].shape == (4, 3, 8, 8) and -1 <= whole[0].min() < whole[0].max() <= 1


def test_every_epoch_visits_every_picture_once_in_another_order():
    steps = iter(Shuffled(12, Split(batch=3, seed=1), first_step=0))
    epochs = [[key for _ in range(4) for key in next(steps)] for _ in range(2)]
    for number, keys in enumerate(epochs):
        assert sorted(keys) == [(number, index) for index in range(12)]
    assert [index for _, index in epochs[0]] != [index for _, index in epochs[1]]
    later = iter(Shuffled(12, Split(batch=3, seed=1), first_step=5))
    assert [next(later), next(later)] == [epochs[1][3:6], epochs[1][6:9]]
    shares = [next(iter(Shuffled(12, Split(batch=1, rank=rank, world=3, seed=1), 0))) for rank in range(3)]
    assert [key for share in shares for key in share] == epochs[0][:3]


def test_pictures_are_cropped_scaled_and_mirrored_by_epoch(images):
    pictures = Pictures(str(images), 8, seed=0)
    x, label = pictures[0, 0]
    assert x.shape == (3, 8, 8) and label == 0
    path, _ = pictures.folder.samples[0]
    plain = torch.from_numpy(np.array(center_crop(Image.open(path), 8))).permute(2, 0, 1) / 127.5 - 1
    seen = {torch.equal(pictures[epoch, 0][0], plain): pictures[epoch, 0][0] for epoch in range(20)}
    assert torch.equal(seen[False], plain.flip(-1)) and True in seen
    assert torch.equal(pictures[3, 1][0], pictures[3, 1][0])


@pytest.mark.parametrize("size", [(8, 8), (17, 40), (33, 9), (100, 71)])
def test_crops_are_centred_squares(size):
    columns = np.linspace(0, 255, size[0])[None, :, None].repeat(size[1], 0).repeat(3, 2).astype(np.uint8)
    crop = np.asarray(center_crop(Image.fromarray(columns), 8)).astype(int)
    assert crop.shape == (8, 8, 3)
    assert abs(crop.mean() - 127.5) < 255 / size[0]
    share = min(size) / size[0]  # of the width that is left
    assert crop[0, -1, 0] - crop[0, 0, 0] == pytest.approx(255 * share * 7 / 8, abs=35)


def test_an_image_folder_tells_its_size(images):
    source = data.open_data(str(images), 8, Split(batch=2, rank=1, world=2), workers=0)
    assert isinstance(source, ImageFolderData) and (source.num_classes, source.steps_per_epoch) == (2, 2)
    x, y = next(source.batches())
    assert x.shape == (2, 3, 8, 8) and y.shape == (2,)
