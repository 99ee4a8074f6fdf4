from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from safetensors.torch import save_file
from tiny_parts import TINY_AE
from tiny_programs import parts, tiny

import flux.pipeline
from flux import cli, geneval, pictures, weights
from flux.__main__ import main as flux_main
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.pipeline import Pipeline
from flux.runs import sample_prompts
from toca.runs.pictures import to_uint8
from toca.testing.parts import randomize, save_module

__all__ = ["parts", "tiny"]
STEPS = ["--num_steps", "8"]


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


def prompt_of(path: Path) -> str | None:
    return Image.open(path).getexif().get(ExifTags.Base.ImageDescription)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.name != ".lock")


# ---- src/sample.py -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def prompt_file(tmp_path) -> str:
    path = tmp_path / "prompts.txt"
    path.write_text("a cat\n\n  two dogs \na fish\n")
    return str(path)


def sample_run(folder: Path, prompt_file: str, *flags: str) -> Path:
    args = ["--prompt_file", prompt_file, "--output_dir", str(folder), "--add_sampling_metadata", *flags]
    sample_prompts(args)
    return folder


DEV = ["--model_name", "flux-dev", *STEPS]


def test_one_picture_per_prompt_with_its_prompt_inside(tmp_path, tiny, prompt_file, capsys):
    folder = sample_run(tmp_path / "out", prompt_file, *tiny, *DEV, "--num_images_per_prompt", "2")
    assert listing(folder) == [*(f"img_{i}.jpg" for i in range(6)), "manifest.json"]
    assert [prompt_of(folder / f"img_{i}.jpg") for i in range(6)] == ["a cat"] * 2 + ["two dogs"] * 2 + ["a fish"] * 2
    assert read(folder / "img_0.jpg").shape == (48, 64, 3) and read(folder / "img_0.jpg").std() > 1
    said = capsys.readouterr().out
    assert "preset toca4-01: toca: 4 full, 4 partial steps" in said and "TFLOPs per image" in said and "6 images in" in said


def test_a_picture_does_not_depend_on_its_batch(tmp_path, tiny, prompt_file):
    one = sample_run(tmp_path / "one", prompt_file, *tiny, *DEV, "--seed", "5")
    two = sample_run(tmp_path / "two", prompt_file, *tiny, *DEV, "--seed", "5", "--batch_size", "2")
    other = sample_run(tmp_path / "other", prompt_file, *tiny, *DEV, "--seed", "6")
    for i in range(3):
        assert abs(read(one / f"img_{i}.jpg") - read(two / f"img_{i}.jpg")).max() <= 3  # a level, and what JPEG makes of it
    assert abs(read(one / "img_1.jpg") - read(other / "img_1.jpg")).max() > 20


def test_an_interrupted_run_goes_on(tmp_path, tiny, prompt_file, monkeypatch, capsys):
    whole = sample_run(tmp_path / "whole", prompt_file, *tiny, *DEV)
    generate, calls = Pipeline.generate, []

    def interrupted(self, prompts, *rest, **sampling):
        calls.append(list(prompts))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return generate(self, prompts, *rest, **sampling)

    monkeypatch.setattr(Pipeline, "generate", interrupted)
    with pytest.raises(SystemExit) as stop:
        sample_run(tmp_path / "out", prompt_file, *tiny, *DEV)
    assert stop.value.code == 130 and "interrupted: finished files stay" in capsys.readouterr().out
    assert listing(tmp_path / "out") == ["img_0.jpg", "manifest.json"]
    sample_run(tmp_path / "out", prompt_file, *tiny, *DEV)
    assert calls[2:] == [["two dogs"], ["a fish"]]
    for i in range(3):
        assert (tmp_path / "out" / f"img_{i}.jpg").read_bytes() == (whole / f"img_{i}.jpg").read_bytes()


def test_a_folder_of_another_run_is_refused(tmp_path, tiny, prompt_file):
    sample_run(tmp_path / "out", prompt_file, *tiny, "--num_steps", "1")
    with pytest.raises(SystemExit, match=r"other settings.*seed was 0, now 1"):
        sample_run(tmp_path / "out", prompt_file, *tiny, "--num_steps", "1", "--seed", "1")


def test_schnell_runs_four_steps_without_caching(tmp_path, tiny, prompt_file, capsys):
    sample_run(tmp_path / "out", prompt_file, *tiny)
    assert "preset none: none: 4 full steps" in capsys.readouterr().out


METHODS = {
    "none": "none: 8 full steps",
    "fora": "fora: 2 full, 6 reuse steps",
    "toca": "toca: 4 full, 4 partial steps",
    "duca": "duca: 4 full, 3 skip, 1 partial steps",
    "taylorseer": "taylorseer: 4 full, 4 forecast steps",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method(tmp_path, tiny, prompt_file, method, capsys):
    folder = sample_run(tmp_path / "out", prompt_file, *tiny, *DEV, "--method", method, "--batch_size", "3")
    assert METHODS[method] in capsys.readouterr().out and len(listing(folder)) == 4
    assert json.loads((folder / "manifest.json").read_text())["settings"]["method"]["name"] == method


def test_flops_are_printed_and_nothing_is_written(tmp_path, prompt_file, capsys):
    size = ["--model_name", "flux-dev", "--num_steps", "50", "--width", "1024", "--height", "1024"]
    sample_run(tmp_path / "out", prompt_file, *size, "--test_FLOPs")
    said = capsys.readouterr().out
    assert "1263.22 with every step rounded" in said and "14 full, 36 partial" in said
    assert not (tmp_path / "out").exists()


def test_offload_changes_no_picture_and_says_what_it_saves(tmp_path, tiny, prompt_file, capsys):
    plain = sample_run(tmp_path / "plain", prompt_file, *tiny, *DEV)
    capsys.readouterr()
    offloaded = sample_run(tmp_path / "off", prompt_file, *tiny, *DEV, "--offload")
    assert "of weights on cpu at a time" in capsys.readouterr().out
    assert (plain / "img_0.jpg").read_bytes() == (offloaded / "img_0.jpg").read_bytes()


def test_bf16_and_upstream_numerics_stay_near(tmp_path, tiny, prompt_file):
    flags = [*tiny, *DEV, "--method", "none", "--batch_size", "3"]
    exact = read(sample_run(tmp_path / "a", prompt_file, *flags) / "img_0.jpg")
    half = read(sample_run(tmp_path / "b", prompt_file, *flags, "--dtype", "bf16") / "img_0.jpg")
    published = read(sample_run(tmp_path / "c", prompt_file, *flags, "--dtype", "bf16", "--upstream_numerics") / "img_0.jpg")
    assert 0 < abs(exact - half).mean() < 4 and 0 < abs(exact - published).mean() < 12


# ---- src/geneval_flux.py -----------------------------------------------------------------------------------------------------------


def geneval_run(folder: Path, metadata: Path, *flags: str) -> Path:
    geneval.main([str(metadata), "--output_dir", str(folder), *flags])
    return folder


@pytest.fixture
def metadata(tmp_path) -> Path:
    path = tmp_path / "metadata.jsonl"
    path.write_text('{"tag": "single_object", "prompt": "a bench"}\n{"prompt": "a cow", "include": [{"class": "cow"}]}\n')
    return path


def test_genevals_layout_and_resume(tmp_path, tiny, metadata):
    flags = [*tiny, "--model_name", "flux-dev", "--steps", "6", "--n_samples", "3", "--batch_size", "2"]
    folder = geneval_run(tmp_path / "out", metadata, *flags)
    assert listing(folder) == sorted(
        ["manifest.json"]
        + [f"0000{i}/{name}" for i in range(2) for name in ("grid.png", "metadata.jsonl", *(f"samples/0000{k}.png" for k in range(3)))]
    )
    assert json.loads((folder / "00001/metadata.jsonl").read_text()) == {"prompt": "a cow", "include": [{"class": "cow"}]}
    assert not (folder / "00001/metadata.jsonl").read_text().endswith("\n")
    assert read(folder / "00000/grid.png").shape == (2 * 50 + 2, 2 * 66 + 2, 3)
    assert not Image.open(folder / "00000/samples/00000.png").getexif()
    before = {name: (folder / name).read_bytes() for name in listing(folder)}
    os.remove(folder / "00001/samples/00001.png")
    geneval_run(folder, metadata, *flags)
    after = {name: (folder / name).read_bytes() for name in listing(folder)}
    assert json.loads(after.pop("manifest.json"))["settings"] == json.loads(before.pop("manifest.json"))["settings"]
    assert after == before
    more = [*flags[:-3], "4", "--batch_size", "2", "--skip_grid", "--add_sampling_metadata"]
    geneval_run(folder, metadata, *more)
    assert prompt_of(folder / "00001/samples/00003.png") == "a cow" and len(listing(folder)) == 13


def test_other_metadata_of_the_same_prompts_is_another_run(tmp_path, tiny, metadata):
    flags = [*tiny, "--steps", "1"]
    geneval_run(tmp_path / "out", metadata, *flags)
    metadata.write_text(metadata.read_text().replace('"class": "cow"', '"class": "bull"'))
    with pytest.raises(SystemExit, match=r"other settings \(metadata was"):
        geneval_run(tmp_path / "out", metadata, *flags)


def test_a_killed_writers_parts_go_and_a_grid_follows_its_samples(tmp_path, tiny, metadata):
    flags = [*tiny, "--steps", "1", "--n_samples"]
    folder = geneval_run(tmp_path / "out", metadata, *flags, "1")
    part = folder / "00000" / "samples" / ".00001.0123abcd.part.png"
    part.write_bytes(b"half")
    geneval_run(folder, metadata, *flags, "2")
    assert not part.exists() and read(folder / "00000/grid.png").shape == (2 * 50 + 2, 68, 3)


# ---- python -m flux ----------------------------------------------------------------------------------------------------------------


def test_text_to_image_counts_on(tmp_path, tiny, capsys):
    flags = [*tiny, "--name", "flux-schnell", "--prompt", "a cat", "--output_dir", str(tmp_path), "--seed", "3"]
    (tmp_path / "img_7.jpg").touch()
    flux_main(flags)
    flux_main(["t2i", *flags, "--add_sampling_metadata", "False"])
    assert (prompt_of(tmp_path / "img_8.jpg"), prompt_of(tmp_path / "img_9.jpg")) == ("a cat", None)
    assert np.array_equal(read(tmp_path / "img_8.jpg"), read(tmp_path / "img_9.jpg"))
    assert "seed 3: 'a cat'" in capsys.readouterr().out


def test_the_loop(tmp_path, tiny, monkeypatch, capsys):
    lines = iter(["/w 32", "/h 17", "/x", "/s 4", "/n 2", "/g 2.5", "a dog", "", "/h 32", "/q"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    flux_main([*tiny, "--name", "flux-dev", "--loop", "--prompt", "unused", "--output_dir", str(tmp_path)])
    said = capsys.readouterr().out
    assert listing(tmp_path) == ["img_0.jpg", "img_1.jpg"]
    assert [prompt_of(tmp_path / f"img_{i}.jpg") for i in range(2)] == ["a dog", "a dog"]
    assert read(tmp_path / "img_1.jpg").shape == (48, 32, 3)
    assert "/h wants a multiple of 16, got 17" in said and "unknown command /x" in said and "seed 4: 'a dog'" in said
    assert said.count("seed 4: 'a dog'") == 1  # of the next picture only


# ---- what pictures carry -----------------------------------------------------------------------------------------------------------


def test_rounding_and_upstreams_truncation():
    levels = torch.arange(256) / 127.5 - 1
    x = levels.expand(1, 3, 1, 256)
    assert to_uint8(x)[0, 0, :, 1].tolist() == list(range(256))
    truncated = to_uint8(x, truncate=True)[0, 0, :, 1]
    assert (truncated != np.arange(256)).sum() > 0 and abs(truncated.astype(int) - np.arange(256)).max() == 1
    assert to_uint8(torch.full((1, 3, 1, 1), 3.0)).max() == 255


def test_watermark_from_its_minimum_size_on(monkeypatch):
    class Encoder:
        def set_watermark(self, kind, bits):
            assert kind == "bits" and len(bits) == 46

        def encode(self, picture, method):
            assert method == "dwtDct" and picture.flags["C_CONTIGUOUS"]
            return picture + np.uint8([1, 0, 0])  # blue, which comes first there

    monkeypatch.setitem(sys.modules, "imwatermark", types.SimpleNamespace(WatermarkEncoder=Encoder))
    mark = pictures.watermarker()
    assert mark(np.zeros((256, 256, 3), np.uint8))[0, 0].tolist() == [0, 0, 1]
    assert mark(np.zeros((240, 256, 3), np.uint8)).max() == 0
    monkeypatch.setitem(sys.modules, "imwatermark", None)
    with pytest.raises(ValueError, match="--watermark: it needs `pip install invisible-watermark`"):
        pictures.watermarker()


def test_what_is_asked_for_and_not_there_is_refused(tmp_path, tiny, prompt_file, monkeypatch):
    """Before anything is loaded or written: no run without the filter or the watermark that it was to have."""
    monkeypatch.setattr(pictures, "NSFW_MODEL", str(tmp_path / "nowhere"))
    monkeypatch.setitem(sys.modules, "imwatermark", None)
    monkeypatch.setattr(Pipeline, "load", None)
    large = [*tiny, "--width", "256", "--height", "256"]
    for flag, message in (
        ("--use_nsfw_filter", "--use_nsfw_filter: .*nowhere could not be loaded"),
        ("--watermark", "--watermark: it needs"),
    ):
        with pytest.raises(SystemExit, match=message):
            sample_run(tmp_path / "out", prompt_file, *large, flag)
        with pytest.raises(SystemExit, match=message):
            flux_main([*large, flag, "--output_dir", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="--watermark needs 256 x 256 pixels"):
        sample_run(tmp_path / "out", prompt_file, *tiny, "--watermark")
    assert not (tmp_path / "out").exists()


def test_unsafe_pictures_are_not_written(tmp_path, tiny, monkeypatch, prompt_file, capsys):
    ratings = iter([0.1, 0.9, 0.2])
    monkeypatch.setattr("flux.runs.nsfw_filter", lambda: lambda picture: next(ratings))
    folder = sample_run(tmp_path / "out", prompt_file, *tiny, "--num_steps", "1", "--use_nsfw_filter")
    assert listing(folder) == ["img_0.jpg", "img_2.jpg", "manifest.json"]
    assert "img_1.jpg not written: NSFW score 0.90" in capsys.readouterr().out


def test_an_adapter_decides_pictures(tmp_path, tiny, prompt_file):
    """Its content and its scale are settings of the run."""
    lora, flags = tmp_path / "lora.safetensors", [*tiny, "--model_name", "flux-dev", "--num_steps", "1"]
    stem = "transformer.single_transformer_blocks.0.proj_mlp"
    save_file({f"{stem}.lora_A.weight": torch.randn(4, 32), f"{stem}.lora_B.weight": torch.randn(128, 4)}, lora)
    plain = sample_run(tmp_path / "plain", prompt_file, *flags)
    adapted = sample_run(tmp_path / "adapted", prompt_file, *flags, "--lora", str(lora))
    off = sample_run(tmp_path / "off", prompt_file, *flags, "--lora", str(lora), "--lora_scale", "0")
    assert abs(read(plain / "img_0.jpg") - read(adapted / "img_0.jpg")).max() > 3
    assert np.array_equal(read(plain / "img_0.jpg"), read(off / "img_0.jpg"))
    with pytest.raises(SystemExit, match=r"other settings \(lora was "):
        sample_run(adapted, prompt_file, *flags, "--lora", str(lora), "--lora_scale", "0.5")


def test_no_black_picture_of_an_overflow(tmp_path, tiny, prompt_file, monkeypatch):
    monkeypatch.setattr(flux.pipeline, "denoise", lambda model, img, **_: img * torch.inf)
    with pytest.raises(SystemExit, match=r"error: the latents: \d+ of \d+ values are NaN or infinite"):
        sample_run(tmp_path / "out", prompt_file, *tiny, "--num_steps", "1")
    assert not list((tmp_path / "out").glob("*.jpg"))


# ---- errors ------------------------------------------------------------------------------------------------------------------------

ERRORS = {
    "device": (["--device", "nonsense"], "no such kind of device"),
    "no gpu": (["--device", "cuda:77"], "CUDA devices"),
    "checkpoint": (["--ckpt", "./nowhere"], "--ckpt names ./nowhere.*huggingface.co/black-forest-labs/FLUX.1-schnell.*put it at"),
    "t5": (["--t5", "./nowhere"], "no T5 encoder at ./nowhere: get it from https://huggingface.co/google/t5-v1_1-xxl.*--t5"),
}  # fmt: skip


NUMBERS = {
    "--width": ("15", "a whole number of 16 to 16384, got '15'"),
    "--height": ("-1", "a whole number of 16 to 16384"),
    "--num_steps": ("0", "a whole number of 1 to 1000"),
    "--guidance": ("nan", "0 to 1000, got 'nan'"),
    "--batch_size": ("0", "a whole number of 1 to"),
    "--fresh_threshold": ("0", "a whole number of 1 to"),
}


@pytest.mark.parametrize("flag", NUMBERS)
def test_a_wrong_number_is_one_line(tmp_path, prompt_file, flag, capsys):
    value, message = NUMBERS[flag]
    with pytest.raises(SystemExit, match="2"):
        sample_run(tmp_path / "out", prompt_file, flag, value)
    (line,) = capsys.readouterr().err.splitlines()
    assert f"sample.py: error: argument {flag}: must be {message}" in line


@pytest.mark.parametrize("name", ERRORS)
def test_a_wrong_flag_is_one_line(tmp_path, tiny, prompt_file, name):
    flags, message = ERRORS[name]
    with pytest.raises(SystemExit, match=message) as error:
        sample_run(tmp_path / "out", prompt_file, *tiny, *flags)
    assert str(error.value).startswith("error: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["/dev/null", "/dev/null/out", "read-only"])
def test_an_output_folder_that_cannot_be_written_to_is_found_first(tmp_path, tiny, prompt_file, metadata, folder, monkeypatch):
    """Before anything is loaded, in every program."""
    monkeypatch.setattr(weights, "load_flow_model", None)
    if folder == "read-only":
        folder = str(tmp_path)
        monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    message = rf"error: --output(_dir)? {folder}.*(cannot be written to: Permission denied|is a file, not a folder)"
    programs = (
        lambda: sample_run(Path(folder), prompt_file, *tiny),
        lambda: geneval_run(Path(folder), metadata, *tiny),
        lambda: flux_main([*tiny, "--name", "flux-schnell", "--output_dir", folder]),
    )
    for program in programs:
        with pytest.raises(SystemExit, match=message):
            program()


def test_another_weight_of_the_same_name_is_refused(tmp_path, tiny, parts, prompt_file):
    """Of any network: pictures of two runs do not mix."""
    flags = [*tiny, "--num_steps", "1"]
    sample_run(tmp_path / "out", prompt_file, *flags)
    ae = tmp_path / "ae.safetensors"
    save_module(randomize(AutoEncoder(TINY_AE), seed=5), ae)
    (tmp_path / "t5").mkdir()
    for part in (parts / "first").iterdir():
        (tmp_path / "t5" / part.name).write_bytes(part.read_bytes() + b" " * (part.name == "tokenizer_config.json"))
    for name, more in {"ae": ["--ae", str(ae)], "t5": ["--t5", str(tmp_path / "t5")], "clip": ["--clip", "some/encoder"]}.items():
        with pytest.raises(SystemExit, match=rf"other settings \({name} was"):
            sample_run(tmp_path / "out", prompt_file, *flags, *more)
    (tmp_path / "same").symlink_to(parts / "first")
    sample_run(tmp_path / "out", prompt_file, *flags, "--t5", str(tmp_path / "same"))  # where a file is does not matter


@pytest.mark.parametrize("content", [b"", b" \n\n", b"\xff\xfe\x00", None])
def test_an_unusable_prompt_file_is_one_line(tmp_path, tiny, content):
    path = tmp_path / "p.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SystemExit, match=r"error: --prompt_file .*(no prompt|not UTF-8|cannot be read)"):
        sample_run(tmp_path / "out", str(path), *tiny)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"tag": 1}'])
def test_an_unusable_metadata_file_is_one_line(tmp_path, tiny, content):
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(SystemExit, match=r"error: .*(no prompt|not JSON)"):
        geneval_run(tmp_path / "out", tmp_path / "m.jsonl", *tiny)


def test_the_encoders_cannot_be_swapped(tmp_path, tiny, parts, prompt_file):
    with pytest.raises(SystemExit, match="is no T5 encoder"):
        sample_run(tmp_path / "out", prompt_file, *tiny, "--t5", str(parts / "second"))


def test_exhausted_memory_is_one_line(tmp_path, tiny, prompt_file, monkeypatch):
    def exhausted(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 GiB")

    monkeypatch.setattr(Pipeline, "generate", exhausted)
    with pytest.raises(SystemExit, match=r"error: out of memory: try --offload.*\(CUDA out of memory\.\)"):
        sample_run(tmp_path / "out", prompt_file, *tiny)


def test_memory_exhausted_on_the_way_loses_nothing(tmp_path, tiny, prompt_file, monkeypatch):
    """With --offload the networks leave the device, finished pictures stay, and the same command goes on."""
    denoise, calls = flux.pipeline.denoise, []
    moved = []
    monkeypatch.setattr(Flux, "to", lambda self, place: moved.append(str(place)) or self)

    def exhausted(*args, **kwargs):
        calls.append(kwargs["seeds"])
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return denoise(*args, **kwargs)

    monkeypatch.setattr(flux.pipeline, "denoise", exhausted)
    with pytest.raises(SystemExit, match=r"error: out of memory: try --offload, --dtype bf16, a smaller --batch_size"):
        sample_run(tmp_path / "out", prompt_file, *tiny, "--offload")
    assert moved == ["cpu"] * 4 and listing(tmp_path / "out") == ["img_0.jpg", "manifest.json"]
    sample_run(tmp_path / "out", prompt_file, *tiny, "--offload")
    assert calls == [[0], [1], [1], [2]] and len(listing(tmp_path / "out")) == 4


@pytest.mark.parametrize("argv", [["--preset", "no"], ["--method", "no"], ["--name", "flux-pro"], ["paint"], ["--promp", "x"]])
def test_unknown_choices_are_refused(argv):
    with pytest.raises(SystemExit):
        flux_main(argv)
    assert cli.next_index(Path("nowhere")) == 0


# ---- started as programs -----------------------------------------------------------------------------------------------------------

FORK = Path(__file__).parents[1]


def test_they_start_and_fail_in_one_line(tmp_path):
    """As a user starts them; src/sample.py and sample.py are told apart by their paths."""
    env = dict(os.environ, PYTHONPATH=os.pathsep.join((str(FORK / "src"), str(FORK), os.environ.get("PYTHONPATH", ""))))
    env |= dict(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    commands = (
        ["sample.py", "--output", "picture"],
        ["src/sample.py", "--prompt_file", str(tmp_path / "none.txt")],
        ["src/geneval_flux.py", str(tmp_path / "none.jsonl")],
        ["-m", "flux", "--device", "nonsense"],
    )
    started = [
        subprocess.Popen([sys.executable, *command], cwd=FORK, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    for process in started:
        errors = process.communicate(timeout=300)[1].strip().splitlines()
        assert process.returncode == 1 and len(errors) == 1 and errors[0].startswith("error: ")
