"""Command lines that make no sense: every program refuses them in one line, before a network is built, and leaves nothing behind."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny import MINI8, random_dit

import demo
import download
import sample
import sample_ddp
import train
from dit import bench
from dit.flags import demo_parser, download_parser, sample_ddp_parser, sample_parser
from dit.layouts import shapes
from dit.spec import CONFIGS
from dit.training.flags import train_parser
from toca.testing.hostile import hopeless_numbers, refused

MINI = ("--model", "DiT-mini", "--device", "cpu")
SMALL = (*MINI, "--image-size", "8")
LATENT = ("--model", "DiT-S/8", "--ckpt", "latent.safetensors")
TRAIN = ("--data-path", "shapeworld", "--max-steps", "2", *SMALL)
PROGRAMS = {  # entry, a command line that makes sense, parser
    "sample": (sample.main, MINI, sample_parser),
    "sample_ddp": (sample_ddp.main, MINI, sample_ddp_parser),
    "demo": (demo.main, MINI, demo_parser),
    "train": (train.main, TRAIN, train_parser),
    "bench": (bench.main, (), bench.parser),
    "download": (download.main, (), download_parser),
}

Case = tuple[str, Sequence[str], str]  # program, flags, what the line says
OUTPUTS: list[Case] = [
    ("sample", ("--output", "sample"), "--output sample: not the name of a picture"),
    ("sample", ("--output", "sample.xyz"), "--output sample.xyz: not the name of a picture"),
    ("sample", ("--output", ""), "not the name of a picture"),
    ("sample", ("--output", "folder.png"), "folder.png is a folder"),
    ("sample", ("--output", "text.txt/sample.png"), "text.txt is a file, not a folder"),
    ("sample", ("--output", "a" * 300 + ".png"), "no name that a file can have"),
    ("sample", ("--output", "/proc/sample.png"), "cannot be written to"),
    ("sample_ddp", ("--sample-dir", "text.txt"), "text.txt is a file, not a folder"),
    ("sample_ddp", ("--sample-dir", "/proc/none"), "cannot be written to"),
    ("sample_ddp", ("--sample-dir", "b" * 300), "no name that a file can have"),
    ("sample_ddp", ("--num-fid-samples", "10000000", "--image-size", "4096"), "this run writes about"),
    ("demo", ("--output", "demo"), "--output demo: not the name of a picture"),
    ("demo", ("--output", "folder.png"), "folder.png is a folder"),
    ("demo", ("--json", "text.txt/a.json"), "text.txt is a file, not a folder"),
    ("demo", ("--json", "demo.png"), "would overwrite --output"),
    ("train", ("--results-dir", "text.txt"), "text.txt is a file, not a folder"),
    ("train", ("--results-dir", "/proc/none"), "cannot be written to"),
    ("train", ("--results-dir", "c" * 300), "no name that a file can have"),
    ("bench", ("--output", "folder.png"), "folder.png is a folder"),
]
FILES: list[Case] = [
    *((p, ("--ckpt", "absent.pt"), "no checkpoint absent.pt") for p in ("sample", "sample_ddp", "demo")),
    *((p, ("--ckpt", "text.txt"), "text.txt is refused: not a checkpoint") for p in ("sample", "sample_ddp", "demo")),
    ("sample", ("--ckpt", "empty.pt"), "empty.pt is empty"),
    ("sample", ("--ckpt", "page.pt"), "page.pt is a web page"),
    ("sample", ("--ckpt", "lfs.safetensors"), "is a pointer of Git LFS"),
    ("sample", ("--ckpt", "cut.safetensors"), "cut.safetensors is not a safetensors file, or damaged"),
    ("sample", ("--ckpt", "list.pt"), "holds a list"),
    ("sample", ("--ckpt", "names.pt"), "are no names"),
    ("sample", ("--ckpt", "nested.pt"), "are not tensors"),
    ("sample", ("--ckpt", "other.safetensors", "--image-size", "8"), "does not fit the model"),
    ("sample", ("--ckpt", "good.safetensors"), "pos_embed is (1, 16, 128), wanted (1, 256, 128)"),
    ("sample", ("--ckpt", "folder.png"), "holds no weights"),
    ("sample", ("--ckpt", "nonull.safetensors", "--image-size", "8"), "trained without a null label"),
    ("sample", ("--ckpt", "good.safetensors", "--image-size", "8", "--num-classes", "21", "--cfg-scale", "1.5"), "without a null label"),
    ("sample", ("--ckpt", "good.safetensors", "--image-size", "8", "--num-classes", "7"), "wanted (8, 128)"),
    ("sample", ("--model", "DiT-XL/2"), "no checkpoint DiT-XL-2-256x256.pt"),
    ("sample", ("--model", "DiT-XL/2", "--image-size", "512"), "no checkpoint DiT-XL-2-512x512.pt"),
    ("sample", ("--model", "DiT-S/8"), "no official weights for DiT-S/8"),
    *(
        (p, (*LATENT, "--vae", vae), f"no VAE {vae}")
        for p in ("sample", "sample_ddp")
        for vae in ("nowhere", "text.txt", "folder.png", "a/b")
    ),
    ("sample", LATENT, "python download.py --vae mse"),
    ("train", ("--model", "DiT-S/8", "--image-size", "256", "--vae", "nowhere"), "no VAE nowhere"),
    ("sample", ("--model", "DiT-S/2", "--ckpt", "good.safetensors", "--vae", "ema"), "does not fit the model"),
    ("train", ("--init", "absent.pt"), "absent.pt"),
    ("train", ("--init", "text.txt"), "text.txt is refused"),
    ("train", ("--resume", "absent/checkpoints/1.pt"), "absent/checkpoints/1.pt"),
    ("train", ("--resume", "good.safetensors"), "lies in no folder checkpoints of a run"),
    ("train", ("--resume", "run/checkpoints/weights.pt"), "cannot be resumed, it lacks ema, opt, step"),
    ("train", ("--resume", "run/checkpoints/step.pt"), "its step is -3"),
    ("train", ("--data-path", "nowhere", "--max-steps", "2"), "--data-path nowhere: no such folder"),
    ("train", ("--data-path", "text.txt", "--max-steps", "2"), "--data-path text.txt: no such folder"),
    ("train", ("--data-path", "folder.png", "--max-steps", "2"), "--data-path folder.png: wanted a folder of pictures for every class"),
]
SENSE: list[Case] = [
    *((p, ("--image-size", "9"), "--image-size must be a multiple of 2") for p in ("sample", "sample_ddp", "demo", "train")),
    *((p, ("--image-size", "1000000"), "--image-size: must be a whole number of 1 to 16384") for p in ("sample", "sample_ddp", "train")),
    *((p, ("--vae", "mse"), "works on pixels") for p in ("sample", "sample_ddp", "demo", "train")),
    *((p, ("--model", "DiT-XL/2", "--vae", "none"), "it needs a VAE") for p in ("sample", "demo")),
    *((p, ("--eta", "0.5", "--no-ddim-sample"), "--eta needs --ddim-sample") for p in ("sample", "sample_ddp", "demo")),
    *((p, ("--guide-all-channels", "--cfg-scale", "1"), "--guide-all-channels needs guidance") for p in ("sample", "sample_ddp", "demo")),
    *(
        (p, ("--device", d), f"--device {d}")
        for p in ("sample", "sample_ddp", "demo", "train")
        for d in ("meta", "xla", "toaster", "cuda:99")
    ),
    *(
        (p, ("--method", "taylorseer", "--fresh-threshold", "3"), "the cycle length of taylorseer is --interval")
        for p in ("sample", "sample_ddp")
    ),
    *((p, ("--method", "fora", "--interval", "3"), "--interval: --method fora has no such setting") for p in ("sample", "sample_ddp")),
    *((p, ("--method", "none", "--fresh-ratio", "0.1"), "--method none has no such setting") for p in ("sample", "sample_ddp")),
    ("sample", ("--method", "fora", "--cache-type", "norm"), "--method fora has no such setting"),
    ("sample", ("--preset", "ddim50", "--max-order", "2", "--model", "DiT-mini"), "--method none has no such setting"),
    *((p, ("--grid", "karras"), "--grid karras needs --solver") for p in ("sample", "sample_ddp", "demo")),
    *((p, ("--solver", "unipc", "--ddim-sample"), "two samplers: give one of them") for p in ("sample", "sample_ddp", "demo")),
    ("sample", ("--solver", "unipc", "--upstream-stream"), "leave --solver out"),
    ("sample", ("--solver", "unipc", "--eta", "0.5"), "--eta needs --ddim-sample"),
    ("sample", ("--class-labels", "20"), "--class-labels [20] are outside 0..19"),
    ("sample", ("--class-labels", "-1"), "--class-labels"),
    ("sample", ("--class-labels", "cat"), "--class-labels: must be a whole number"),
    ("sample", ("--num-classes", "0"), "--num-classes"),
    ("sample", ("--model", "DiT-XXL/2"), "--model: invalid choice"),
    ("sample", ("--dtype", "fp8"), "--dtype: invalid choice"),
    ("sample", ("--cache-type", "straight"), "--cache-type: invalid choice"),
    ("sample", ("--ratio-scheduler", "sine"), "--ratio-scheduler: invalid choice"),
    ("sample", ("--preset", "toca9"), "--preset: invalid choice"),
    ("sample", ("--num-samples", "3"), "unrecognized arguments: --num-samples 3"),
    ("sample", ("--ddim",), "unrecognized arguments: --ddim"),
    ("sample", ("--seed", str(2**63)), "--seed: must be a whole number"),
    ("sample_ddp", ("--global-seed", "-1"), "--global-seed: must be a whole number"),
    ("sample_ddp", ("--num-fid-samples", "0"), "--num-fid-samples"),
    ("sample_ddp", ("--num-fid-samples", "1000000000"), "--num-fid-samples"),
    ("sample_ddp", ("--per-proc-batch-size", "0"), "--per-proc-batch-size"),
    ("demo", ("--test-FLOPs",), "unrecognized arguments: --test-FLOPs"),
    ("demo", ("--upstream-stream",), "unrecognized arguments: --upstream-stream"),
    ("demo", ("--method", "toca"), "unrecognized arguments: --method toca"),
    ("demo", ("--images", "0"), "--images"),
    ("demo", ("--batch", "0"), "--batch"),
    ("demo", ("--repeats", "-1"), "--repeats"),
    ("train", ("--ema-decay", "2"), "--ema-decay"),
    ("train", ("--ema-decay", "1"), "--ema-decay"),
    ("train", ("--cooldown", "nan"), "--cooldown"),
    ("train", ("--cooldown", "1.5"), "--cooldown"),
    ("train", ("--num-classes", "-5"), "--num-classes"),
    ("train", ("--num-classes", "7"), "has 20 classes, the model 7"),
    ("train", ("--global-batch-size", "0"), "--global-batch-size"),
    ("train", ("--lr", "-1e-4"), "--lr"),
    ("train", ("--lr", "0"), "--lr must be above 0"),
    ("train", ("--warmup-steps", "-1"), "--warmup-steps"),
    ("train", ("--warmup-steps", "2"), "would never come to its --lr"),
    ("train", ("--max-steps", "0"), "--max-steps"),
    ("train", ("--epochs", "3"), "--epochs: shapeworld has none"),
    ("train", ("--log-every", "0"), "--log-every"),
    ("train", ("--ckpt-every", "-1"), "--ckpt-every"),
    ("train", ("--num-workers", "-1"), "--num-workers"),
    ("train", ("--patch-size", "3"), "--patch-size 3 does not divide"),
    ("train", ("--patch-size", "0"), "--patch-size"),
    ("train", ("--timestep-mean", "1"), "belong to --timestep-sampler logit-normal"),
    ("train", ("--timestep-sampler", "logit-normal", "--timestep-std", "0"), "--timestep-std"),
    ("train", ("--optimizer", "sgd"), "--optimizer: invalid choice"),
    ("train", ("--init", "good.safetensors", "--resume", "run/checkpoints/step.pt"), "give one of them"),
    ("download", ("--image-size", "1024"), "--image-size: invalid choice"),
    ("download", ("--vae", "big"), "--vae: invalid choice"),
    ("bench", ("--model", "DiT-Q/2"), "--model: invalid choice"),
    ("bench", ("--methods", "magic"), "--methods: invalid choice"),
    ("bench", ("--device", "toaster"), "--device toaster"),
    ("bench", ("--image-size", "100"), "--image-size must be a multiple of 16"),
]
CASES = [*OUTPUTS, *FILES, *SENSE]


def sparse(path: Path, shapes: Mapping[str, Sequence[int]]) -> None:
    """A file of zeros with these float32 tensors, which takes no room."""
    header, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[key] = dict(dtype="F32", shape=list(shape), data_offsets=[start, end])
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with files that are not what they are said to be."""
    for module in (
        "dit.runs",
        "dit.demo",
        "dit.training.train",
        "diffusers.models",
        "matplotlib.pyplot",
    ):
        importlib.import_module(module)
    path = tmp_path_factory.mktemp("hostile")
    (path / "folder.png").mkdir()
    (path / "text.txt").write_text("a line of text that is no checkpoint\n")
    (path / "empty.pt").touch()
    (path / "page.pt").write_text("<!DOCTYPE html><title>404</title>")
    (path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    state = {key: value.contiguous() for key, value in random_dit(MINI8).state_dict().items()}
    save_file(state, path / "good.safetensors")
    save_file(random_dit(MINI8.replace(depth=7)).state_dict(), path / "other.safetensors")
    save_file(random_dit(MINI8.replace(class_dropout_prob=0.0)).state_dict(), path / "nonull.safetensors")
    (path / "cut.safetensors").write_bytes((path / "good.safetensors").read_bytes()[:-1000])
    sparse(path / "latent.safetensors", shapes(CONFIGS["DiT-S/8"]))
    torch.save([1, 2], path / "list.pt")
    torch.save({1: torch.zeros(2)}, path / "names.pt")
    torch.save({"weights": {"a": torch.zeros(2)}}, path / "nested.pt")
    run = path / "run" / "checkpoints"
    run.mkdir(parents=True)
    torch.save(dict(model=state), run / "weights.pt")
    torch.save(dict(model=state, ema=state, opt=[{}], step=-3, args={}), run / "step.pt")
    return path


def test_bad_command_lines_are_refused(folder: Path) -> None:
    """All in one test, so that its time is that of all."""
    started = time.perf_counter()
    for program, flags, message in CASES:
        main, sensible, _ = PROGRAMS[program]
        line = refused(main, [*sensible, *flags], folder)
        assert message in line and "error: " in line, (program, flags, line)
    assert len(CASES) >= 100 and time.perf_counter() - started < 20


@pytest.mark.parametrize("name", PROGRAMS)
def test_numbers_that_are_none_are_refused_by_name(folder: Path, name: str) -> None:
    main, sensible, parser = PROGRAMS[name]
    for flag, case in hopeless_numbers(parser()):
        assert flag in refused(main, [*sensible, case], folder), case


def test_every_program_takes_its_sensible_command_line(folder: Path) -> None:
    """The lines above are refused for what was added to it alone."""
    for name, (_, sensible, parser) in PROGRAMS.items():
        assert parser().parse_args(sensible), name
