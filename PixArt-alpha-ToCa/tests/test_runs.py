"""The programs on tiny networks: files and pictures, batches and processes, resuming, methods and samplers, bad input."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
import types
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from small import small_pixart
from tiny_parts import FORK, TINY, flags, program, save_pixart

from pixart import pipeline
from pixart.flags import RunSettings, parse
from pixart.model import PixArt, PixArtMS
from pixart.pipeline import Pipeline
from pixart.prompts import MAX_CHARACTERS, Prompt, read_lines
from pixart.runs import parser
from pixart.weights import save_diffusers
from toca.methods import METHODS
from toca.testing.parts import save_t5

PROMPTS = ["a fox", "a fox", "x" * 400, "über / ../ \\ 🦊 \x07 <b>y</b>", "❤"]
Run = Callable[..., Path]


@pytest.fixture
def script(tiny: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Run a script in this process."""

    def run(name: str, *flags: str) -> None:
        monkeypatch.setattr(sys, "argv", [name, *flags])
        monkeypatch.setattr(sys, "path", [*sys.path])
        runpy.run_path(str(FORK / name), run_name="__main__")

    return run


@pytest.fixture
def infer(script: Callable[..., None], parts: Path, tmp_path: Path) -> Run:
    """Run scripts/inference.py on prompts; returns the folder it wrote."""

    def run(*more: str, prompts: Sequence[str] = PROMPTS, name: str = "pictures", size: int = 256) -> Path:
        file = tmp_path / f"{name}.txt"
        file.write_text("".join(f"{prompt}\n" for prompt in prompts), encoding="utf-8")
        out = ["--txt_file", str(file), "--output_dir", str(tmp_path), "--save_name", name]
        script("scripts/inference.py", *flags(parts, tmp_path, *out, *more, size=size))
        return tmp_path / name

    return run


def pictures(folder: Path) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))]).astype(int)


def error(run: Run, *more: str, **options: object) -> str:
    """The one line that a wrong command ends with."""
    with pytest.raises(SystemExit) as caught, redirect_stderr(StringIO()) as shown:
        run(*more, **options)
    (line,) = (shown.getvalue() if caught.value.code == 2 else str(caught.value)).splitlines()
    return line


# ---- files -------------------------------------------------------------------------------------------------------------------------


def test_every_prompt_has_its_picture_and_the_index_says_which(infer: Run) -> None:
    folder = infer("--bs", "3", "--npz")
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["prompt"] for row in rows] == PROMPTS
    assert [row["file"] for row in rows] == [path.name for path in sorted(folder.glob("*.png"))]
    assert rows[0] == dict(file="000000.png", prompt="a fox", text="a fox", height=256, width=256)
    shown = pictures(folder)
    assert shown.shape == (5, 256, 256, 3)
    assert len(np.unique(shown.reshape(5, -1), axis=0)) == 5  # equal prompts have noise of their own
    assert np.array_equal(np.load(f"{folder}.npz")["arr_0"], shown)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["settings"]["method"]["name"] == "toca" and manifest["num_images"] == 5


def test_the_published_command_finds_everything_by_itself(
    script: Callable[..., None], parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """README's command without paths: files lie in pretrained_models/, prompts in asset/samples.txt."""
    pretrained = tmp_path / "pretrained_models"
    pretrained.mkdir()
    for name, part in (("PixArt-XL-2-256x256.pth", "256.pth"), ("sd-vae-ft-ema", "vae"), ("t5-v1_1-xxl", "t5-v1_1-xxl")):
        (pretrained / name).symlink_to(parts / part)
    monkeypatch.setattr("pixart.flags.PRETRAINED", pretrained)
    monkeypatch.setattr("pixart.weights.PRETRAINED", pretrained)
    monkeypatch.chdir(tmp_path)
    script("scripts/inference.py", "--bs", "100", "--preset", "toca3-r70", "--text_cache", "texts", "--device", "cpu")
    (folder,) = (path for path in (tmp_path / "output").iterdir())
    assert folder.name == (
        "custom_epochunknown_stepunknown_scale4.5_step20_size256_sampdpm-solver_seed0_toca_3_0.3_attention_ToCa_global_0.25"
    )
    assert len(list(folder.glob("*.png"))) == 12


def test_a_folder_s_name_tells_runs_apart(tiny: None, parts: Path, tmp_path: Path) -> None:
    model = save_pixart(tmp_path / "epoch_3_step_500.pth", TINY[256])

    def name(*more: str) -> str:
        argv = [*flags(parts, tmp_path, "--step", "-1"), *more, "--model_path", model]
        return RunSettings.from_args(parse(parser(), argv), ["a fox"]).folder_name()

    assert name("--method", "none").startswith("custom_epoch3_step500_scale4.5_step20_size256_")
    runs = ("--method none", "--method fora", "--fresh_ratio 0.2", "--seed 1", "--sampling_algo iddpm", "--step 9")
    assert len({name(*more.split()) for more in runs}) == len(runs)


# ---- seeds, batches, processes ------------------------------------------------------------------------------------------------------


def test_no_picture_depends_on_its_batch(infer: Run) -> None:
    alone, together = pictures(infer("--bs", "1", name="alone")), pictures(infer("--bs", "5", name="together"))
    assert abs(alone - together).max() <= 1
    assert abs(pictures(infer("--bs", "5", "--seed", "1", name="other")) - together).max() > 8


def test_processes_share_the_work_and_change_nothing(infer: Run, parts: Path, tmp_path: Path) -> None:
    alone = infer("--bs", "2", name="alone")
    out = ["--txt_file", f"{tmp_path}/alone.txt", "--output_dir", str(tmp_path), "--save_name", "shared", "--bs", "2", "--npz"]
    done = program("scripts/inference_ddp.py", *flags(parts, tmp_path / "fresh", *out), processes=2)
    assert done.returncode == 0, done.stderr
    assert abs(pictures(tmp_path / "shared") - pictures(alone)).max() <= 1
    assert np.load(tmp_path / "shared.npz")["arr_0"].shape == (5, 256, 256, 3)
    assert len(list((tmp_path / "fresh" / "texts").rglob("*.safetensors"))) == 4  # different texts


def test_a_killed_run_goes_on_with_the_same_bytes(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = infer("--bs", "2", name="whole")
    made, make = [], Pipeline.pictures

    def killed(self: Pipeline, prompts: Sequence[Prompt], seed: int, indices: Sequence[int]) -> list[np.ndarray]:
        if len(made) == 1:
            raise KeyboardInterrupt
        made.append(indices)
        return make(self, prompts, seed, indices)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="130"):
        patch.setattr(Pipeline, "pictures", killed)
        infer("--bs", "2", name="resumed")
    folder = infer("--bs", "2", name="resumed")
    assert made == [[0, 1]]
    assert [path.read_bytes() for path in sorted(folder.glob("*.png"))] == [path.read_bytes() for path in sorted(whole.glob("*.png"))]


def test_texts_are_encoded_once(infer: Run, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    infer()
    monkeypatch.setattr("pixart.pipeline.T5Embedder", None)  # calling it would fail
    infer("--seed", "1", name="again")
    with pytest.raises(TypeError):
        infer(prompts=["another"], name="other")


# ---- what is computed ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algo", ("dpm-solver", "sa-solver", "iddpm"))
@pytest.mark.parametrize("cfg", ("4.5", "1"))
def test_every_sampler_runs_cached_and_uncached_and_a_cycle_of_one_caches_nothing(infer: Run, algo: str, cfg: str) -> None:
    run = ["--sampling_algo", algo, "--cfg_scale", cfg, "--step", "6", "--bs", "2"]

    def picture(name: str, *more: str) -> np.ndarray:
        return pictures(infer(*run, *more, prompts=PROMPTS[:2], name=name))

    plain, cycle_of_one, cached = picture("plain", "--method", "none"), picture("one", "--fresh_threshold", "1"), picture("cached")
    assert abs(plain - cycle_of_one).max() <= 1 < abs(plain - cached).max()


def test_the_methods_differ(infer: Run) -> None:
    run, needed = ["--step", "8", "--bs", "2"], {"scheduled": ["--full_steps", "0,3,6"]}
    made = [pictures(infer(*run, "--method", m, *needed.get(m, []), prompts=PROMPTS[:2], name=m)) for m in METHODS]
    assert len(np.unique(np.stack(made).reshape(len(METHODS), -1), axis=0)) == len(METHODS) == 6


def test_aspect_ratios_are_sampled_whatever_the_batch_but_by_square_models_left(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    told, embed = [], PixArtMS.sizes
    monkeypatch.setattr(PixArtMS, "sizes", lambda self, info, rows: told.append(info) or embed(self, info, rows))
    prompts = ["a fox --ar 1:4", "a hen --ar 4:1", "a dog --aspect_ratio 1:4"]
    folder = infer("--bs", "3", "--step", "2", prompts=prompts, size=1024)
    sizes = [Image.open(path).size for path in sorted(folder.glob("*.png"))]
    assert sizes == [(2048, 512), (512, 2048), (2048, 512)]
    assert [info["img_hw"].tolist() for info in told] == [[[512.0, 2048.0]] * 2, [[2048.0, 512.0]]]
    assert [info["aspect_ratio"].tolist() for info in told] == [[[0.25]] * 2, [[4.0]]]
    alone = infer("--step", "2", prompts=prompts[:1], name="alone", size=1024)
    first, again = (np.asarray(Image.open(f / "000000.png")).astype(int) for f in (folder, alone))
    assert abs(first - again).max() <= 1
    assert pictures(infer(prompts=prompts, name="square")).shape == (3, 256, 256, 3)


def test_one_picture_of_one_prompt(script: Callable[..., None], parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "new" / "fox.png"
    script("sample.py", *flags(parts, tmp_path, "--prompt", "a fox", "--output", str(out)))
    assert Image.open(out).size == (256, 256)
    assert "256 x 256 pixels" in capsys.readouterr().out


def test_flops_need_no_weights(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["inference_ddp.py", "--test_FLOPs", "--preset", "dpm20", "--bs", "2"])
    runpy.run_path(str(FORK / "scripts" / "inference_ddp.py"), run_name="__main__")
    upstream, matmul = capsys.readouterr().out.splitlines()
    assert upstream.startswith("upstream: 22.36") and matmul.endswith("TFLOPs for 2 image(s)")


# ---- bad input ----------------------------------------------------------------------------------------------------------------------


def test_bad_prompts_are_refused_before_anything_is_loaded(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart.runs.Pipeline", None)
    assert "holds no prompt" in error(infer, prompts=["", "  "])
    assert "prompt 2 has 100000 characters, at most 65536" in error(infer, prompts=["a", "x" * 100_000])
    assert "prompt 1: '--ar wide' is no aspect ratio: write --ar height:width" in error(infer, prompts=["a fox --ar wide"])
    assert "--npz wants pictures of one size; the prompts ask for 2" in error(infer, "--npz", prompts=["a", "b --ar 2:1"], size=1024)
    assert "--bs: must be a whole number of 1 to 10000, got '0'" in error(infer, "--bs", "0")
    assert "--step: must be a whole number of 1 to 1000" in error(infer, "--step", "0")
    assert "--cfg_scale: must be 1 to 1000" in error(infer, "--cfg_scale", "0.5")
    assert "--fresh_threshold: must be a whole number of 1 to 1000" in error(infer, "--fresh_threshold", "0")


def test_files_that_are_missing_or_do_not_fit_are_one_error(infer: Run, parts: Path, tmp_path: Path) -> None:
    assert "download.py" in error(infer, "--model_path", "nowhere.pth")
    assert "for 512 pixels, not for --image_size 256" in error(infer, "--model_path", f"{parts}/512.pth")
    assert "no VAE" in error(infer, "--vae", str(tmp_path / "nowhere"))
    assert "no T5 encoder at" in error(infer, "--t5_path", str(tmp_path / "nowhere"), prompts=["never encoded"])
    save_t5(tmp_path / "wide", width=24)
    assert "features of width 24; the model reads 16" in error(infer, "--t5_path", str(tmp_path / "wide"))
    assert not list(tmp_path.rglob("*.png"))


def test_a_folder_of_another_run_is_left_as_it_is(infer: Run) -> None:
    folder = infer()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert "other settings (seed was 0, now 1)" in error(infer, "--seed", "1")
    assert "other settings (prompts was" in error(infer, prompts=["other"])
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_prompt_at_the_limit_is_read() -> None:
    (prompt,) = read_lines(["x" * MAX_CHARACTERS], 256)
    assert len(prompt.text) == MAX_CHARACTERS


def test_a_folder_of_other_networks_or_cleaning_is_left_as_it_is(infer: Run, parts: Path, tmp_path: Path) -> None:
    """Told apart by what their files hold, not by their names."""
    vae = shutil.copytree(parts / "vae", tmp_path / "vae")
    infer("--vae", str(vae))
    shutil.copytree(vae, tmp_path / "copy")
    infer("--vae", str(tmp_path / "copy"))
    (vae / "config.json").write_text((vae / "config.json").read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert "other settings (vae was" in error(infer, "--vae", str(vae))
    assert "other settings (clean_caption was True, now False)" in error(infer, "--clean_caption", "False")
    other = save_pixart(tmp_path / "other.pth", TINY[256], seed=1)
    assert "other settings (checkpoint was" in error(infer, "--vae", str(tmp_path / "copy"), "--model_path", other)


def test_uncleaned_prompts_reach_t5_as_they_are(infer: Run, tmp_path: Path) -> None:
    def texts(*more: str, name: str) -> list[str]:
        folder = infer(*more, prompts=["A Fox 12345678", "@hen"], name=name)
        return [json.loads(line)["text"] for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]

    assert texts(name="cleaned") == ["a fox", ""]
    assert texts("--clean_caption", "False", name="plain") == ["A Fox 12345678", "@hen"]
    assert abs(pictures(tmp_path / "cleaned") - pictures(tmp_path / "plain")).max() > 1
    assert len(list((tmp_path / "texts").rglob("*.safetensors"))) == 4


def test_a_folder_in_diffusers_layout_is_sampled(infer: Run, parts: Path, tmp_path: Path) -> None:
    """With the null text of a PixArt checkpoint its pictures would be that checkpoint's; with diffusers' they are others."""
    folder = tmp_path / "pipeline"
    save_diffusers(folder / "transformer", small_pixart(TINY[256]).state_dict(), TINY[256])
    shutil.copytree(parts / "vae", folder / "vae")
    encoder = shutil.copytree(parts / "t5-v1_1-xxl", folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    for file in encoder.glob("token*"):
        file.rename(folder / "tokenizer" / file.name)
    all_of_it = ["--model_path", str(folder), "--vae", str(folder), "--t5_path", str(folder)]
    known = ["--text_cache", str(tmp_path / "known")]
    without = ["--cfg_scale", "1"]
    guided, unguided = pictures(infer(*all_of_it, *known, name="a")), pictures(infer(*all_of_it, *known, *without, name="b"))
    assert abs(pictures(infer(*without, name="c")) - unguided).max() <= 1
    assert abs(pictures(infer(name="d")) - guided).max() > 1
    assert len(list((tmp_path / "known").rglob("*.safetensors"))) == 5  # four different prompts, and the empty one


def test_texts_are_embedded_before_the_other_networks_load(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []

    def noted(name: str) -> Callable[..., object]:
        original = getattr(pipeline, name)
        return lambda *args, **options: order.append(name) or original(*args, **options)

    names = ["T5Embedder", "load_model", "load_autoencoder"]
    for name in names:
        monkeypatch.setattr(pipeline, name, noted(name))
    infer(prompts=["a fox"])
    assert order == names


def test_outputs_that_are_not_finite_are_one_error_instead_of_a_picture(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PixArt, "forward", lambda self, x, *more, **options: torch.full((len(x), 8, *x.shape[2:]), torch.nan))
    line = error(infer, prompts=["a fox"], name="black")
    assert "the latents: 4096 of 4096 values are NaN or infinite; " in line


def test_a_full_disk_is_one_error_and_the_run_goes_on_later(infer: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(picture: np.ndarray, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pixart.runs.save_picture", full)
        assert "the disk is full" in error(infer, prompts=["a fox"])
    with monkeypatch.context() as patch:
        patch.setattr("pixart.text_cache.save_file", lambda *args: full(None, None))
        assert "the disk is full" in error(infer, prompts=["never encoded"], name="texts")
    assert pictures(infer(prompts=["a fox"])).shape == (1, 256, 256, 3)


def test_room_for_the_pictures_is_looked_for_first(infer: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart.runs.Pipeline", None)
    monkeypatch.setattr("toca.runs.outputs.shutil.disk_usage", lambda path: types.SimpleNamespace(free=1e6))
    line = error(infer, "--npz")
    assert "--save_name" in line and "this run writes about 1.3 MB, and the disk has 1.0 MB free" in line


def test_two_runs_in_one_folder_are_one_too_many(infer: Run, tmp_path: Path) -> None:
    folder = infer(prompts=["a fox"])
    with FileLock(folder / ".lock"):
        assert "another run is at work in" in error(infer, prompts=["a fox"])
    assert pictures(folder).shape[0] == 1


def test_a_picture_of_its_own_is_replaced_whole_or_not_at_all(
    script: Callable[..., None], parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out := tmp_path / "fox.png").write_bytes(b"mine")
    run = flags(parts, tmp_path, "--prompt", "a fox", "--output", str(out))
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.Image.save", lambda *args, **options: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(SystemExit):
            script("sample.py", *run)
    assert out.read_bytes() == b"mine" and [path.name for path in tmp_path.iterdir() if path.is_file()] == ["fox.png"]
    script("sample.py", *run)
    assert Image.open(out).size == (256, 256)
