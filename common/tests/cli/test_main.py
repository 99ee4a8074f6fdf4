"""`toca` itself: forks by entry point, plans of any spec as text and data, `compare`. What DiT's numbers are is tested in the fork."""

from __future__ import annotations

import argparse
import json
import re
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import toy
from PIL import Image

from toca.cli import forks
from toca.cli.main import main
from toca.cli.table import off
from toca.methods import NoCaching, ToCa
from toca.metrics import compare
from toca.metrics.distance import psnr, ssim
from toca.planning.flops import total_flops
from toca.planning.spec import ModelSpec
from toca.presets import PRINTED, Preset, Published

Toca = Callable[..., str]


@pytest.fixture
def toca(capsys: pytest.CaptureFixture[str]) -> Toca:
    def call(*argv: str) -> str:
        main(argv)
        return capsys.readouterr().out

    return call


def error(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line that a wrong command ends with."""
    with pytest.raises(SystemExit) as exit:
        main(argv)
    out, err = capsys.readouterr()
    assert exit.value.code == 2 and not out and err.count("\n") == 1
    return err


# ---- forks ----------------------------------------------------------------------------------------------------------------------------


def two_stacks() -> ModelSpec:
    return toy.spec(toy.stack("pair", 2), toy.stack("single", 3, [toy.attn(20), toy.mlp(20, None)]), counts_down=True)


def planning_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=(), default=None)
    parser.add_argument("--steps", type=int, default=8)
    return parser


def planned_run(args: argparse.Namespace) -> forks.PlannedRun:
    return forks.PlannedRun("toy", two_stacks(), ToCa(ratio=0.3, ratio_schedule="constant"), args.steps, rows_per_image=2)


def presets_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--preset", choices=("half", "whole"), default=None)
    parser.add_argument("--steps", type=int, default=8)
    return parser


def uncached_run(args: argparse.Namespace) -> forks.PlannedRun:
    return forks.PlannedRun("toy", two_stacks(), NoCaching(), args.steps, rows_per_image=2)


@pytest.fixture
def fork(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A fork `toy`, installed as far as the engine can tell, whose benchmark keeps its arguments; and one that cannot be imported."""
    module = types.ModuleType("toy_cli")
    module.planning_parser, module.planned_run, module.given = planning_parser, planned_run, []
    module.main, module.presets = module.given.extend, {}
    monkeypatch.setitem(sys.modules, "toy_cli", module)
    entries = [
        EntryPoint("toy", "toy_cli", forks.MODELS),
        EntryPoint("toy", "toy_cli:main", forks.BENCHMARKS),
        EntryPoint("broken", "no_such_module_here", forks.MODELS),
    ]
    monkeypatch.setattr(forks, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    return module


def test_a_plan_of_several_stacks(toca: Toca, fork: types.ModuleType) -> None:
    lines = toca("plan", "toy").splitlines()
    assert lines[0] == "toy, toca(interval=3, ratio=0.3, ratio_schedule=constant)"
    assert "pair.attn tokens" in lines[2] and "single.mlp tokens" in lines[2]
    assert lines[4].split()[:6] == ["0-1", "full", "15", "100.0%", "15", "100.0%"]
    assert re.match(r"^\d-\d +partial +- +4 +26.7% +- +6 +30.0%", next(line for line in lines if "partial" in line))
    assert lines[-1].startswith("8 steps: ")


def test_data_agrees_with_the_plan(toca: Toca, fork: types.ModuleType) -> None:
    plan = planned_run(argparse.Namespace(steps=8)).plan
    steps = json.loads(toca("plan", "toy", "--json"))["steps"]
    for counter in ("matmul", "upstream"):
        total = total_flops(plan, counter, rows=2)
        assert sum(step["flops"][counter] for step in steps) == total
        assert json.loads(toca("flops", "toy", "--json"))["counters"][counter]["total"] == total
    for step, row in zip(steps, plan.steps, strict=True):
        assert step["branches"]["single.mlp"]["tokens"] == [row["single", layer, "mlp"].tokens for layer in range(3)]


def test_commands_print_something_for_any_number_of_steps(toca: Toca, fork: types.ModuleType, tmp_path: Path) -> None:
    for steps in ("1", "2"):
        assert "speed-up" in toca("flops", "toy", "--steps", steps)
        assert "peak" in toca("memory", "toy", "--steps", steps, "--batch", "2")
        assert toca("plan", "toy", "--steps", steps, "--png", str(tmp_path / "plan.png"))


def test_a_model_without_presets_has_an_empty_table(toca: Toca, fork: types.ModuleType) -> None:
    assert json.loads(toca("table", "toy", "--json")) == []


def test_a_table_has_one_baseline_and_says_how_far_printed_totals_are(
    toca: Toca, fork: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    uncached = total_flops(NoCaching().plan(two_stacks(), 8), "upstream", rows=2) / 1e12
    rows = (Published("one", dict(tflops=uncached / 2)), Published("two", dict(tflops=uncached, psnr=30.125), "of another run"))
    fork.presets = {"half": Preset(dict(steps=4), rows, baseline=8), "whole": Preset(dict(steps=8), rows[1:])}
    monkeypatch.setattr(fork, "planning_parser", presets_parser)
    monkeypatch.setattr(fork, "planned_run", uncached_run)
    monkeypatch.setitem(PRINTED, "toy", {"Other": (Published("three", dict(speedup=1.5)),)})
    half, whole, other = json.loads(toca("table", "toy", "--json"))
    assert (half["baseline"], whole["baseline"], other["exact"]) == (8, 8, None)
    assert half["exact"]["speedup"] == pytest.approx(2) and whole["exact"]["speedup"] == 1
    assert off(half["published"][0]) is None and off(half["published"][1]) == pytest.approx(-0.5) and off(other["published"][0]) is None
    text = toca("table", "toy")
    assert text.startswith("x: over 8 uncached steps\n") and "-50.00%" in text and text.count("\nx: over") == 0
    assert re.search(r"^Other +1.50 +\[3\]$", text, re.MULTILINE) and re.search(r" 30.125 +\[2\]$", text, re.MULTILINE)
    assert "Other" not in toca("table", "toy", "--preset", "half")


def test_bench_gets_its_arguments(fork: types.ModuleType) -> None:
    main(["bench", "toy", "--batch", "8", "--help"])
    assert fork.given == ["--batch", "8", "--help"]


def test_a_benchmark_may_be_named_otherwise_than_its_models(fork: types.ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    (benchmark,) = forks.entry_points(group=forks.BENCHMARKS)
    found = {forks.MODELS: [], forks.BENCHMARKS: [benchmark]}
    monkeypatch.setattr(forks, "entry_points", lambda group: found[group])
    main(["bench", "toy", "--batch", "8"])
    assert fork.given == ["--batch", "8"]


def test_mistakes_end_with_one_line(capsys: pytest.CaptureFixture[str], fork: types.ModuleType) -> None:
    assert error(capsys, "plan", "flux") == "toca plan flux: error: there is no model 'flux'; installed: broken, toy\n"
    assert error(capsys, "bench", "flux") == "toca bench flux: error: there is no benchmark 'flux'; installed: toy\n"
    assert error(capsys, "plan", "broken") == "toca plan broken: error: No module named 'no_such_module_here'\n"
    assert error(capsys, "plan", "toy", "--steps", "0") == "toca plan toy: error: num_steps must be at least 1, got 0\n"
    assert "the following arguments are required: MODEL" in error(capsys, "plan")
    assert "required: COMMAND" in error(capsys)
    assert "invalid choice: 'draw'" in error(capsys, "draw", "toy")


def test_no_fork_at_all(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "entry_points", lambda group: [])
    assert "installed: none" in error(capsys, "plan", "dit")


# ---- compare --------------------------------------------------------------------------------------------------------------------------


def pictures(number: int = 5, seed: int = 0, size: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (number, size, size + 2, 3), dtype=np.uint8)


def save_npz(path: Path, images: np.ndarray, compressed: bool = False) -> str:
    (np.savez_compressed if compressed else np.savez)(path, images)
    return str(path)


def save_folder(path: Path, images: np.ndarray) -> str:
    path.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image).save(path / f"{index:06d}.png")
    return str(path)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "CHUNK", 2)


@pytest.mark.parametrize("save", (save_npz, save_folder))
def test_compare_is_the_mean_over_all_pairs(toca: Toca, tmp_path: Path, save: Callable[..., str]) -> None:
    a, b = pictures(), pictures(seed=1)
    data = json.loads(toca("compare", save(tmp_path / "a.npz", a), save(tmp_path / "b.npz", b), "--json"))
    assert (data["pairs"], data["identical"]) == (5, 0)
    assert data["psnr"] == pytest.approx(psnr(a, b), abs=1e-4)
    assert data["ssim"] == pytest.approx(ssim(a, b), abs=1e-5)


def test_compare_reads_compressed_files_and_counts_equal_pairs(toca: Toca, tmp_path: Path) -> None:
    a = pictures()
    b = np.concatenate([a[:2], pictures(3, seed=1)])
    text = toca("compare", save_npz(tmp_path / "a.npz", a, compressed=True), save_npz(tmp_path / "b.npz", b))
    assert re.fullmatch(r"5 pairs: PSNR inf dB, SSIM 0\.\d{4} \(2 pairs are identical\)\n", text)
    assert json.loads(toca("compare", str(tmp_path / "a.npz"), str(tmp_path / "a.npz"), "--json"))["psnr"] is None


def test_compare_refuses_what_does_not_match(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = save_npz(tmp_path / "good.npz", pictures())
    folder, other = save_folder(tmp_path / "folder", pictures()), save_folder(tmp_path / "other", pictures(4))
    np.savez(tmp_path / "float.npz", pictures().astype(np.float32))
    np.savez(tmp_path / "named.npz", images=pictures())
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "empty").mkdir()
    for a, b, message in (
        (good, str(tmp_path / "missing.npz"), "No such file or directory"),
        (good, folder, "compare two folders or two .npz files, not one of each"),
        (good, save_npz(tmp_path / "fewer.npz", pictures(4)), "good.npz holds 5 pictures of 18 x 16 x 3, .*fewer.npz holds 4 pictures"),
        (good, str(tmp_path / "float.npz"), "float.npz: arr_0 must be uint8 .N, H, W, C., got float32"),
        (good, str(tmp_path / "named.npz"), "named.npz is no .npz file with an array arr_0"),
        (good, str(tmp_path / "text.npz"), "text.npz is no .npz file with an array arr_0"),
        (folder, other, "other lacks 1 of the other folder's pictures, first 000004.png"),
        (str(tmp_path / "empty"), str(tmp_path / "empty"), "hold no PNGs"),
        (save_npz(tmp_path / "tiny.npz", pictures(size=8)), str(tmp_path / "tiny.npz"), "at least 11 pixels wide and high"),
        (save_npz(tmp_path / "none.npz", pictures(0)), str(tmp_path / "none.npz"), "hold no pictures"),
    ):
        assert re.search(rf"^toca compare: error: .*{message}", error(capsys, "compare", a, b)), message


def test_compare_refuses_pictures_of_several_sizes_and_broken_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = save_folder(tmp_path / "a", pictures(2)), save_folder(tmp_path / "b", pictures(2))
    for folder in (a, b):
        Image.fromarray(pictures(1, size=20)[0]).save(Path(folder) / "000001.png")
    assert "holds 1 picture of 18 x 16 x 3" in error(capsys, "compare", a, b)
    (Path(a) / "000001.png").write_bytes(b"no picture")
    assert re.search(r"a/000001.png is no readable picture", error(capsys, "compare", a, b))


def save_video(path: Path, frames: np.ndarray) -> str:
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=8, options={"qp": "0"})  # without loss
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def test_compare_reads_what_programs_write_in_folders_below(toca: Toca, tmp_path: Path) -> None:
    a, b = pictures(4), pictures(4, seed=1)
    for name, images in (("a", a), ("b", b)):
        samples = tmp_path / name / "00000" / "samples"
        samples.mkdir(parents=True)
        for index, image in enumerate(images):
            Image.fromarray(image).save(samples / f"{index:05d}.png")
        Image.fromarray(pictures(1, size=40)[0]).save(samples.parent / "grid.png")
        (samples / ".00000.12345678.part.png").write_bytes(b"")
        (samples.parent / "metadata.jsonl").write_text("{}")
    data = json.loads(toca("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"))
    assert data["pairs"] == 4 and data["psnr"] == pytest.approx(psnr(a, b), abs=1e-4)


def test_compare_reads_jpegs_and_single_pictures(toca: Toca, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.fromarray(pictures(1)[0]).save(tmp_path / name / "img_0.JPG")
    assert toca("compare", str(tmp_path / "a"), str(tmp_path / "b")).startswith("1 pairs: PSNR inf dB")
    Image.fromarray(pictures(1)[0]).save(tmp_path / "one.png")
    assert json.loads(toca("compare", str(tmp_path / "one.png"), str(tmp_path / "a" / "img_0.JPG"), "--json"))["psnr"] < 40


def test_compare_reads_the_frames_of_videos(toca: Toca, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    a, b = pictures(5), pictures(5, seed=1)
    for name, frames in (("a", a), ("b", b), ("short", b[:3])):
        (tmp_path / name).mkdir()
        save_video(tmp_path / name / "sample_0.mp4", frames)
    data = json.loads(toca("compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"))
    assert (data["pairs"], data["videos"], data["identical"]) == (5, 1, 0) and data["psnr"] == pytest.approx(psnr(a, b), abs=0.3)
    assert toca("compare", *[str(tmp_path / "a" / "sample_0.mp4")] * 2).startswith("5 pairs of frames, in 1 video: PSNR inf dB")
    message = error(capsys, "compare", str(tmp_path / "a"), str(tmp_path / "short"))
    assert re.search(r"short/sample_0\.mp4 ends after 3 frames, .*a/sample_0\.mp4 has more", message)
    (tmp_path / "short" / "sample_0.mp4").write_bytes(b"no video")
    assert "sample_0.mp4 is no readable video" in error(capsys, "compare", str(tmp_path / "a"), str(tmp_path / "short"))


def test_compare_without_pyav_says_what_is_missing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    assert "videos are read through PyAV, pip install av" in error(capsys, "compare", *[str(tmp_path / "a.mp4")] * 2)


def test_compare_refuses_files_of_two_kinds_and_missing_ones(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    npz = save_npz(tmp_path / "a.npz", pictures())
    Image.fromarray(pictures(1)[0]).save(tmp_path / "a.png")
    assert "compare files of one kind" in error(capsys, "compare", npz, str(tmp_path / "a.png"))
    assert "No such file or directory" in error(capsys, "compare", str(tmp_path / "a.png"), str(tmp_path / "b.png"))
