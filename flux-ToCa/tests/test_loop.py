"""`--loop` of every command, started both ways; and names that two processes never share."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_conditions import save_siglip, unsized
from tiny_parts import T5_WIDTH
from tiny_programs import parts, tiny

from flux.__main__ import main as flux_main
from flux.cli import SAMPLING, SIZE, Order, changed, next_index
from flux.flags import RunSettings, parse
from flux.modules.image_embedders import ReduxAdapter
from flux.pictures import prompt_of
from flux.pipeline import Pipeline
from toca.runs.files import part_of, take_name
from toca.testing.parts import randomize, save_module

__all__ = ["parts", "tiny"]


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch):
    """Sets what is typed at the prompt."""

    def set_lines(*lines: str) -> None:
        left = iter(lines)
        monkeypatch.setattr("builtins.input", lambda _: next(left))

    return set_lines


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, size, colour in (("red.png", (64, 32), "red"), ("blue.png", (32, 64), "blue")):
        Image.new("RGB", size, colour).save(tmp_path / name)
        Image.new("L", size, 255).save(tmp_path / f"mask-{name}")
    (tmp_path / "text.png").write_text("no")
    return tmp_path


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / f"img_{i}.jpg")).astype(int) for i in range(next_index(folder))]


def test_fill_asks_for_prompts_pictures_and_masks(files, tiny, typed, capsys):
    """A mask of another size is said when a picture is asked for, and both may follow one another."""
    red, blue = str(files / "red.png"), str(files / "blue.png")
    lines = [
        "a cat",
        f"/i {blue}",
        "",
        f"/m {files / 'mask-blue.png'}",
        "a dog",
        f"/i {files / 'text.png'}",
        "/i nowhere.png",
        "/w 32",
        "/q",
    ]
    typed(*lines)
    flags = ["--img_cond_path", red, "--img_mask_path", str(files / "mask-red.png"), "--output_dir", str(files / "out"), "--num_steps", "2"]
    flux_main(["fill", *unsized(tiny), *flags, "--loop"])
    said = capsys.readouterr().out
    assert [picture.shape for picture in pictures(files / "out")] == [(32, 64, 3), (64, 32, 3)]
    assert prompt_of(Image.open(files / "out" / "img_1.jpg")) == "a dog"
    for part in (
        "no picture: picture and mask must have one size",
        "text.png: not a picture",
        "nowhere.png: there is no such file",
        "unknown command /w",
    ):
        assert part in said


def test_control_takes_other_pictures_and_sizes(files, tiny, typed):
    typed("/s 1", "a cat", "/s 1", f"/i {files / 'blue.png'}", "", "/w 32", "", "/q")
    flags = ["--name", "flux-dev-depth", "--img_is_map", "--img_cond_path", str(files / "red.png"), "--output_dir", str(files / "out")]
    flux_main(["control", *tiny, *flags, "--num_steps", "2", "--loop"])
    first, second, third = pictures(files / "out")
    assert first.shape == second.shape == (48, 64, 3) and third.shape == (48, 32, 3)
    assert abs(first - second).max() > 3  # of one seed


def test_redux_takes_other_pictures(files, tiny, typed):
    siglip = save_siglip(files / "siglip")
    adapter = save_module(randomize(ReduxAdapter(16, T5_WIDTH)), files / "redux.safetensors")
    typed("/s 1", "", "/s 1", f"/i {files / 'blue.png'}", "", "/q")
    flags = [
        "--siglip",
        str(siglip),
        "--redux",
        str(adapter),
        "--img_cond_path",
        str(files / "red.png"),
        "--output_dir",
        str(files / "out"),
    ]
    flux_main(["redux", *tiny, *flags, "--num_steps", "2", "--loop"])
    first, second = pictures(files / "out")
    assert abs(first - second).max() > 3


REFUSED = [
    "/g nan",
    "/g -1",
    "/g 1e40",
    "/s -1",
    "/s 99999999999999999999",
    "/n 0",
    "/n 2000",
    "/w 8",
    "/w 1000000",
    "/w",
    "/h x",
    "/",
    "/W 32",
]


@pytest.mark.parametrize("line", REFUSED)
def test_the_loop_refuses_what_the_flags_refuse(line, tiny):
    from flux.cli import parser

    order = Order("a cat", RunSettings.from_args(parse(parser(), [*tiny, "--name", "flux-dev"])))
    with pytest.raises(ValueError, match=r"must be|unknown command|whole number|wants"):
        changed(order, line, {**SIZE, **SAMPLING})


def test_schnell_takes_no_guidance_in_the_loop_either(tiny):
    from flux.cli import parser

    order = Order("a cat", RunSettings.from_args(parse(parser(), [*tiny, "--name", "flux-schnell"])))
    with pytest.raises(ValueError, match="flux-schnell was distilled without guidance"):
        changed(order, "/g 3", SAMPLING)


def test_no_line_and_no_failed_picture_ends_the_loop(tmp_path, tiny, typed, monkeypatch, capsys):
    generate, calls = Pipeline.generate, []

    def exhausted(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return generate(self, *args, **kwargs)

    monkeypatch.setattr(Pipeline, "generate", exhausted)
    typed("too large", "bytes \udcff", *REFUSED, "a cat", "/q")
    flux_main([*tiny, "--name", "flux-dev", "--loop", "--output_dir", str(tmp_path), "--num_steps", "1"])
    said = capsys.readouterr().out
    assert "no picture: out of memory: try --offload" in said and "must be text" in said
    assert [path.name for path in tmp_path.iterdir()] == ["img_0.jpg"] and prompt_of(Image.open(tmp_path / "img_0.jpg")) == "a cat"


@pytest.mark.parametrize("command", ["-m src.flux.cli_fill", "-m src.flux.cli_redux", "-m src.flux.cli_control", "-m flux fill"])
def test_upstreams_documented_commands_say_what_they_miss(command):
    """They exited with status 0 and no word."""
    env = dict(os.environ, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    line = [sys.executable, *command.split(), "--loop"]
    done = subprocess.run(line, cwd=Path(__file__).parents[1], capture_output=True, text=True, env=env)
    assert done.returncode == 2 and "the following arguments are required" in done.stderr and len(done.stderr.splitlines()) == 1


# ---- names ----------------------------------------------------------------------------------------------------------------------------


def test_a_name_taken_while_sampling_is_not_taken_again(tmp_path, tiny, monkeypatch):
    """As another process would, which began later and was done earlier."""
    decode = Pipeline.decode

    def meanwhile(self, z):
        (tmp_path / "img_0.jpg").write_bytes(b"another's")
        return decode(self, z)

    monkeypatch.setattr(Pipeline, "decode", meanwhile)
    flux_main([*tiny, "--name", "flux-schnell", "--output_dir", str(tmp_path), "--num_steps", "1"])
    assert (tmp_path / "img_0.jpg").read_bytes() == b"another's"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img_0.jpg", "img_1.jpg"]


def _take(folder: str, text: str) -> None:
    for k in range(25):
        part = part_of(Path(folder) / "img_0.jpg")
        part.write_text(f"{text}{k}")
        take_name(part, lambda index: Path(folder) / f"img_{index}.jpg")


@pytest.mark.parametrize("links", [True, False])
def test_two_processes_at_once_lose_nothing(tmp_path, links, monkeypatch):
    if not links:
        monkeypatch.setattr(os, "link", lambda *paths: (_ for _ in ()).throw(OSError(95, "no links here")))
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_take, args=(str(tmp_path), text)) for text in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(path.read_text() for path in tmp_path.iterdir()) == sorted(f"{text}{k}" for text in "ab" for k in range(25))
