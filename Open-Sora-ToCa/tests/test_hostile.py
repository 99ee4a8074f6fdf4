"""Bad command lines of every program: one line that says what is wrong, before a network is built or a file is written."""

from __future__ import annotations

import json
import runpy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image
from programs import ROOT, noise_video
from safetensors.torch import load_file, save_file

from opensora import bench, flags
from opensora.datasets.write_video import save_sample
from toca.cli.main import main as toca
from toca.testing.hostile import Main, hopeless_numbers, refused

P = ("--prompt", "a fox")
STILL = (*P, "--num-frames", "1")


def program(path: str, *before: str) -> Main:
    """A program of the fork, as if started; before: arguments in front of all others."""

    def main(argv: Sequence[str]) -> None:
        with mock.patch("sys.argv", [path, *before, *argv]):
            runpy.run_path(str(ROOT / path), run_name="__main__")

    return main


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with what the command lines name."""
    Image.new("RGB", (32, 16), "red").save(tmp_path / "a.png")
    save_sample(noise_video(5, 16, 24), tmp_path / "five.mp4", 24, {})
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "five.mp4").read_bytes()[:300])
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("ein Fuchs in München\n".encode("latin-1"))
    (tmp_path / "utf16.txt").write_text("a fox\n", encoding="utf-16")
    (tmp_path / "prompts.txt").write_text("a fox\na hen\n")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "file").write_text("")
    return tmp_path


LINES: dict[str, Sequence[str]] = {  # part of the answer -> the command line, with a small configuration before it
    # flags
    "unrecognized arguments: --promt": ("--promt", "a fox"),
    "unrecognized arguments: --num-frame": (*P, "--num-frame", "17"),
    "unrecognized arguments: another": ("another", *P),
    "argument --prompt: expected at least one": ("--prompt",),
    "invalid choice: 'fp8'": (*P, "--dtype", "fp8"),
    "argument --verbose: invalid choice: 3": (*P, "--verbose", "3"),
    "argument --verbose: ": (*P, "--verbose", "many"),
    "invalid choice: 'toca-r99'": (*P, "--preset", "toca-r99"),
    "invalid choice: 'tocca'": (*P, "--method", "tocca"),
    "invalid choice: 'compress'": (*P, "--cache-type", "compress"),
    "expected True or False, got 'maybe'": (*P, "--watermark", "maybe"),
    "argument --clean-prompts: expected True": (*P, "--clean-prompts", "x"),
    "--llm-refine: there is no service": (*P, "--llm-refine", "true"),
    # what would change nothing
    "argument --fresh-ratio: --method none": (*P, "--method", "none", "--fresh-ratio", "0.2"),
    "argument --cache-type: --method fora": (*P, "--preset", "fora", "--cache-type", "norm"),
    "argument --max-order: --method toca": (*P, "--max-order", "2"),
    "argument --cycles: it would change nothing": (*P, "--method", "none", "--cycles", "3", "3", "3", "3"),
    "argument --bonus: it would change nothing": (*P, "--method", "fora", "--bonus", "1"),
    "argument --bonus-frames: it would change nothing, there is no --bonus": (*P, "--bonus-frames", "2"),
    "argument --fps: it would change nothing, a picture": (*STILL, "--fps", "12"),
    "argument --save-fps: it would change nothing, a picture": (*STILL, "--save-fps", "12"),
    "argument --frame-interval: it would change nothing, save_fps": (*P, "--save-fps", "8", "--frame-interval", "2"),
    "argument --end-index: it would change nothing": (*P, "--end-index", "1"),
    "argument --condition-frame-length: it would change nothing, there is one clip": (*P, "--condition-frame-length", "10"),
    "argument --condition-frame-edit: it would change nothing, there is one clip": (*P, "--condition-frame-edit", "0.5"),
    "argument --align: it would change nothing": (*P, "--align", "3"),
    "argument --seed: it would change nothing, --shared-noise": (*P, "--shared-noise", "--seed", "3"),
    "argument --aspect-ratio: it would change nothing": (*P, "--image-size", "16", "24", "--aspect-ratio", "1:1"),
    "nothing of the reference a.png is used": (*P, "--reference-path", "a.png"),
    "nothing of the reference five.mp4 is used": (*P, "--reference-path", "a.png;five.mp4", "--mask-strategy", "0,0"),
    "sets mask_strategy to 0: it must be a text": ("--prompt", 'a fox{"reference_path": "a.png", "mask_strategy": 0}'),
    "--reference-path and a prompt that says its own": ("--prompt", 'a{"reference_path": "a.png"}', "--reference-path", "a.png"),
    "has a part from clip 2 on, there are 1": ("--prompt", "|0|a fox|2|a hen"),
    "must number its parts in rising order": ("--prompt", "|0|a|2|b|1|c", "--loop", "3", "--num-frames", "34"),
    # sizes and numbers
    "there is no resolution '481p'": (*P, "--resolution", "481p"),
    "480p has no aspect ratio '7:3'": (*P, "--resolution", "480p", "--aspect-ratio", "7:3"),
    "--image-size: must be a whole number of 8 to 16384, got '1000000'": (*P, "--image-size", "1000000", "16"),
    "--image-size: must be a whole number of 8 to 16384, got '7'": (*P, "--image-size", "16", "7"),
    "--image-size: expected 2 arguments": (*P, "--image-size", "16"),
    "1 (a picture) or at least 17, got 16": (*P, "--num-frames", "16"),
    "1 (a picture) or at least 17, got 2": (*P, "--num-frames", "2"),
    "number of frames '3 s'": (*P, "--num-frames", "3 s"),
    "the number of frames must be at least 1, got -5": (*P, "--num-frames", "-5"),
    "--num-frames: must be a whole number of 1 to 16384, got '1000000000'": (*P, "--num-frames", "1000000000"),
    "--seed: must be a whole number of 0 to 9223372036854775807, got '18446744073709551616'": (*P, "--seed", "18446744073709551616"),
    "--seed: must be a whole number of 0 to 9223372036854775807, got '-1'": (*P, "--seed", "-1"),
    "--batch-size: must be a whole number of 1 to": (*P, "--batch-size", "0"),
    "--num-sampling-steps: must be a whole number of 1 to 1000, got '1000000000'": (*P, "--num-sampling-steps", "1000000000"),
    "--cfg-scale: must be -1000 to 1000, got '1e40'": (*P, "--cfg-scale", "1e40"),
    "--fresh-threshold: must be a whole number of 1 to": (*P, "--fresh-threshold", "0"),
    "--fresh-ratio: must be 0 to": (*P, "--fresh-ratio", "-5"),
    "--cycles: must be a whole number of 1 to 1000, got '0'": (*P, "--cycles", "3", "3", "0", "3"),
    "--loop: must be a whole number of 1 to": (*P, "--loop", "0"),
    "--condition-frame-edit: must be 0 to 1": (*P, "--loop", "2", "--condition-frame-edit", "1.5"),
    "must be a multiple of 5 latent frames, got 4": (*P, "--loop", "2", "--condition-frame-length", "4", "--num-frames", "34"),
    "condition_frame_length must be in 1..4": (*P, "--loop", "2"),
    "--num-sample: must be a whole number of 1 to": (*P, "--num-sample", "1000000000"),
    "--start-index 4 and --end-index 4 leave no prompt": ("--prompt-path", "prompts.txt", "--start-index", "4", "--end-index", "4"),
    "has 2 prompts, none from --start-index 2 on": ("--prompt-path", "prompts.txt", "--start-index", "2"),
    "full steps must be below 6": (*P, "--method", "scheduled", "--full-steps", "0,6"),
    # prompts
    "there is no prompt": (),
    "argument --prompt-path: not allowed with argument --prompt": (*P, "--prompt-path", "prompts.txt"),
    "empty.txt holds no prompt": ("--prompt-path", "empty.txt"),
    "latin.txt is not UTF-8 text": ("--prompt-path", "latin.txt"),
    "utf16.txt is not UTF-8 text": ("--prompt-path", "utf16.txt"),
    "none.txt cannot be read: No such file": ("--prompt-path", "none.txt"),
    "folder.mp4 cannot be read: Is a directory": ("--prompt-path", "folder.mp4"),
    "is not JSON": ("--prompt", "a fox{"),
    "sets x; it may set reference_path": ("--prompt", 'a fox{"x": "1"}'),
    "cannot name a file": ("--prompt", "a/b", "--prompt-as-path"),
    "it holds a / or is too long": ("--prompt", "x" * 240, "--prompt-as-path", "--num-frames", "17"),
    "prompt 0 has 5000 characters": ("--prompt", "x" * 5000),
    "2 values for 1 prompts": (*P, "--mask-strategy", "0", "0"),
    "would be a video and the copy of another": ("--prompt", "a", "a_watermark", "--prompt-as-path", "--watermark", "yes"),
    # references
    "there is no reference none.mp4": (*P, "--reference-path", "none.mp4", "--mask-strategy", "0"),
    "reference text.mp4: not a readable video": (*P, "--reference-path", "text.mp4", "--mask-strategy", "0"),
    "reference cut.mp4: not a readable video": (*P, "--reference-path", "cut.mp4", "--mask-strategy", "0"),
    "reference text.jpg: not a picture": (*P, "--reference-path", "text.jpg", "--mask-strategy", "0"),
    "reference cut.png: not a picture": (*P, "--reference-path", "cut.png", "--mask-strategy", "0"),
    "reference empty.txt: expected a picture": (*P, "--reference-path", "empty.txt", "--mask-strategy", "0"),
    "reference http://127.0.0.1:9/a.png: cannot be fetched": (
        *P, "--reference-path", "http://127.0.0.1:9/a.png", "--mask-strategy", "0"),
    "mask strategy 'x' is malformed": (*P, "--reference-path", "a.png", "--mask-strategy", "0;x"),
    "names reference 1, there are 1": (*P, "--reference-path", "a.png", "--mask-strategy", "0,0;0,1"),
    "names reference 0, there are 0": (*P, "--mask-strategy", "0"),
    "names clip 1, there are 1": (*P, "--reference-path", "a.png", "--mask-strategy", "1"),
    "names frame 5, there are 5 latent frames": (*P, "--reference-path", "a.png", "--mask-strategy", "0,0,0,5"),
    "has 2 latent frames, none at 5": (*P, "--reference-path", "five.mp4", "--mask-strategy", "0,0,5", "--align", "1"),
    # files
    "--save-dir file/out": (*P, "--save-dir", "file/out"),
    "--save-dir taken/sample_0000.mp4 is a folder": (*P, "--save-dir", "taken"),
    "is no name that a file can have": (*P, "--sample-name", "x" * 300),
    "there is no checkpoint none.safetensors": (*P, "--ckpt-path", "none.safetensors"),
    "there is no checkpoint /none": (*P, "--ckpt-path", "/none"),
    "--device tpu: no such kind of device": (*P, "--device", "tpu"),
    "--device meta: this machine has none": (*P, "--device", "meta"),
    "--device xla: this machine has none": (*P, "--device", "xla"),
    "--device cuda:99: this machine has": (*P, "--device", "cuda:99"),
}  # fmt: skip


@pytest.mark.parametrize("answer", LINES)
def test_inference(config: Path, here: Path, answer: str) -> None:
    (here / "taken" / "sample_0000.mp4").mkdir(parents=True)
    assert answer in refused(program("scripts/inference.py", str(config)), LINES[answer], here)


@pytest.mark.parametrize(("flag", "word"), list(hopeless_numbers(flags.parser("sample.mp4"))))
def test_every_number(config: Path, tmp_path: Path, flag: str, word: str) -> None:
    assert flag in refused(program("scripts/inference.py", str(config)), [*P, word], tmp_path)


CONFIGURATIONS: dict[str, Callable[[str], str]] = {  # part of the answer -> what is made of a right configuration
    "lacks vae: it must describe": lambda text: text.replace("vae =", "vea ="),
    "lacks scheduler": lambda text: text + "scheduler = 5\n",
    "sets aesthetics; known are aes, align": lambda text: text + "aesthetics = 5\n",
    "sets seed = 'x': must be a whole number": lambda text: text + "seed = 'x'\n",
    "sets seed = True: expected a number": lambda text: text + "seed = True\n",
    "sets seed = 1e+30: must be a whole number": lambda text: text + "seed = 1e30\n",
    "sets cfg_scale; known are": lambda text: text + "cfg_scale = 3\n",
    "sets prompt = 'abc': expected a list": lambda text: text + "prompt = 'abc'\n",
    "sets prompt = 5: expected a text": lambda text: text + "prompt = [5]\n",
    "sets prompt_as_path = 'no': expected True or False": lambda text: text + "prompt_as_path = 'no'\n",
    "sets watermark = 'no': expected True or False": lambda text: text + "watermark = 'no'\n",
    "sets image_size = [16]: expected a list of 2": lambda text: text + "image_size = [16]\n",
    "sets image_size = 4: must be a whole number of 8": lambda text: text + "image_size = (4, 16)\n",
    "sets dtype = 'fp31'; choose from": lambda text: text + "dtype = 'fp31'\n",
    "sets save_dir = 3: expected a text": lambda text: text + "save_dir = 3\n",
    "is not a configuration: SystemExit": lambda text: text + "import sys\nsys.exit(0)\n",
    "is not a configuration: SyntaxError": lambda text: text + "seed =\n",
    "is not a configuration: ZeroDivisionError": lambda text: text + "seed = 1 / 0\n",
    "configuration's scheduler.num_sampling_steps must be a number": lambda text: text + "scheduler['num_sampling_steps'] = 'x'\n",
    "configuration's scheduler.cfg_scale must be": lambda text: text + "scheduler['cfg_scale'] = float('nan')\n",
    "configuration's vae.micro_batch_size must be": lambda text: text + "vae['micro_batch_size'] = 0\n",
    "configuration's vae.micro_frame_size must be": lambda text: text + "vae['micro_frame_size'] = 5\n",
    "configuration's text_encoder.model_max_length must be": lambda text: text + "text_encoder['model_max_length'] = 301\n",
    "model_max_length is 41, the transformer's null caption has 40": lambda text: text + "text_encoder['model_max_length'] = 41\n",
    "use_timestep_transform must be True or False": lambda text: text + "scheduler['use_timestep_transform'] = 'no'\n",
    "there is no model of type 'STDiT'": lambda text: text + "model['type'] = 'STDiT'\n",
    "there is no model of type 'OpenSoraVAE'": lambda text: text + "vae['type'] = 'OpenSoraVAE'\n",
    "got an unexpected keyword argument 'steps'": lambda text: text + "scheduler['steps'] = 3\n",
    "there is no dtype 'int8'": lambda text: text + "text_encoder['dtype'] = 'int8'\n",
    "vae has no from_pretrained": lambda text: text + "vae['from_pretrained'] = None\n",
    "depth of an STDiT3 must be like 28, got 'x'": lambda text: text + "model['depth'] = 'x'\n",
    "does not fit the model: missing: spatial_blocks.2.": lambda text: text + "model['depth'] = 3\n",
    "neither a folder nor a hub name": lambda text: text + "text_encoder['from_pretrained'] = '/none'\n",
}


@pytest.mark.parametrize("answer", CONFIGURATIONS)
def test_configurations(config: Path, tmp_path: Path, answer: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(CONFIGURATIONS[answer](config.read_text()))
    line = refused(program("scripts/inference.py"), [str(path), *P, "--save-dir", "out"], tmp_path)
    assert answer in line and ("wrong.py" in line or "sets" not in answer)


def test_files_that_are_no_configurations(config: Path, tmp_path: Path) -> None:
    (tmp_path / "latin.py").write_bytes(config.read_bytes() + "# ü\n".encode("latin-1"))
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text(config.read_text())
    for path, answer in (
        ("none.py", "there is no configuration none.py"),
        ("folder.py", "there is no configuration folder.py"),
        ("text.txt", "text.txt is no Python configuration"),
        ("latin.py", "latin.py is not a configuration: UnicodeDecodeError"),
    ):
        assert answer in refused(program("scripts/inference.py"), [path, *P], tmp_path)
    assert "arguments are required: config" in refused(program("scripts/inference.py"), [], tmp_path)


def damaged(config: Path, folder: Path, part: str, change: Callable[[Path], object]) -> str:
    """The answer to a configuration of which one part's folder is changed."""
    shutil.copytree(config.parent / part, folder / part)
    change(folder / part)
    (folder / "damaged.py").write_text(config.read_text().replace(f"{config.parent}/{part}", f"{folder}/{part}"))
    return refused(program("scripts/inference.py"), ["damaged.py", *P, "--save-dir", "out"], folder)


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors")

    return rewrite


def written(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "has no config.json": ("stdit", lambda folder: (folder / "config.json").unlink()),
    "config.json cannot be read": ("stdit", written("config.json", "{")),
    "config.json is no configuration": ("stdit", written("config.json", "[]")),
    "config.json: unknown STDiT3 settings depht": ("stdit", written("config.json", '{"depht": 2}')),
    "config.json: num_heads of an STDiT3 must be like 16, got 0": ("stdit", written("config.json", '{"num_heads": 0}')),
    "stdit holds no weights": ("stdit", lambda folder: (folder / "model.safetensors").unlink()),
    "model.safetensors is empty": ("stdit", written("model.safetensors", b"")),
    "is a pointer of Git LFS": ("stdit", written("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
    "damaged": ("vae", lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9])),
    "missing: t_block.1.bias": ("stdit", weights(lambda state: state.pop("t_block.1.bias"))),
    "unexpected: other": ("stdit", weights(lambda state: state.update(other=torch.zeros(1)))),
    "missing: shift": ("vae", weights(lambda state: state.pop("shift"))),
    "config.json: ": ("vae", written("config.json", json.dumps(dict(vae_temporal=dict(filtres=4))))),
    "t5 has no tokenizer": ("t5", lambda folder: [path.unlink() for path in folder.iterdir() if "tokenizer" in path.name]),
    "holds a model of type 'bert', wanted t5": ("t5", written("config.json", '{"model_type": "bert"}')),
    "t5 holds no weights": ("t5", lambda folder: (folder / "model.safetensors").unlink()),
}


@pytest.mark.parametrize("answer", DAMAGES)
def test_damaged_parts(config: Path, tmp_path: Path, answer: str) -> None:
    assert answer in damaged(config, tmp_path, *DAMAGES[answer])


SAMPLE = {
    "there would be 2: use scripts/inference.py": ("--prompt", "a fox", "a hen"),
    "there would be 3: use scripts/inference.py": (*P, "--num-sample", "3"),
    "a file of this length ends in .mp4": (*P, "--output", "a.png"),
    "a file of this length ends in .png": (*STILL, "--output", "a.jpg"),
    "--output folder.mp4 is a folder": (*P, "--output", "folder.mp4"),
    "file is a file, not a folder": (*P, "--output", "file/a.mp4"),
    "is no name that a file can have": (*P, "--output", "x" * 250 + ".mp4"),
    "argument --save-dir: it would change nothing, --output names the file": (*P, "--save-dir", "out"),
    "argument --sample-name: it would change nothing": (*P, "--sample-name", "x"),
    "argument --prompt-as-path: it would change nothing": (*P, "--prompt-as-path"),
}


@pytest.mark.parametrize("answer", SAMPLE)
def test_sample(config: Path, here: Path, answer: str) -> None:
    assert answer in refused(program("sample.py", str(config)), SAMPLE[answer], here)


SIZES = {
    "there is no resolution '481p'": ("--resolution", "481p"),
    "480p has no aspect ratio '7:3'": ("--aspect-ratio", "7:3"),
    "--image-size: must be a whole number of 8 to 16384": ("--image-size", "100000", "100000"),
    "--num-frames: must be a whole number of 1 to": ("--num-frames", "1000000000"),
    "--text-tokens: must be a whole number of 1 to 300": ("--text-tokens", "301"),
    "unrecognized arguments: --prompt": ("--prompt", "a fox"),
}
BENCH = {
    "--batch: must be a whole number of 1 to": ("--batch", "0"),
    "--depth: must be a whole number of 1 to": ("--depth", "-5"),
    "invalid choice: 'STDiT3-9B/2'": ("--model", "STDiT3-9B/2"),
    "--device meta: this machine has none": ("--device", "meta"),
    "--output folder.mp4 is a folder": ("--output", "folder.mp4"),
}


@pytest.mark.parametrize("command", ["plan", "flops", "memory", "table", "bench"])
@pytest.mark.parametrize("answer", SIZES)
def test_sizes_of_toca(here: Path, command: str, answer: str) -> None:
    assert answer in refused(toca, [command, "opensora", *SIZES[answer]], here)


@pytest.mark.parametrize("answer", BENCH)
def test_bench(here: Path, answer: str) -> None:
    assert answer in refused(toca, ["bench", "opensora", *BENCH[answer]], here)


@pytest.mark.parametrize(("flag", "word"), [*hopeless_numbers(flags.planning_parser()), *hopeless_numbers(bench.parser())])
def test_every_number_of_toca(tmp_path: Path, flag: str, word: str) -> None:
    command = "plan" if any(flag in action.option_strings for action in flags.planning_parser()._actions) else "bench"
    assert flag in refused(toca, [command, "opensora", word], tmp_path)


def test_vbench(here: Path) -> None:
    prompts = program("eval/vbench/prompts.py")
    (here / "list.json").write_text('[{"prompt": "a fox"}]')
    assert "there is no none.json" in refused(prompts, ["out.txt", "none.json"], here)
    assert "list.json is not VBench's list" in refused(prompts, ["out.txt", "list.json"], here)
    assert "a.png is not VBench's list" in refused(prompts, ["out.txt", "a.png"], here)
    (here / "lines.json").write_text('[{"prompt_en": "a fox\\na hen"}]')
    assert "is not one line of text" in refused(prompts, ["out.txt", "lines.json"], here)
    assert "folder.mp4 is a folder" in refused(prompts, ["folder.mp4", "list.json"], here)
    assert "arguments are required: target" in refused(prompts, [], here)
