"""Bad command lines of every program: one line, before any network is built, nothing written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny_programs import parts, tiny

from flux import bench, cli, cli_control, cli_fill, cli_picture, cli_redux, geneval, runs
from flux.__main__ import main as flux_main
from toca.cli.main import main as toca_main
from toca.testing.hostile import NO_NUMBERS, hopeless_numbers, refused

__all__ = ["parts", "tiny"]
MAINS: dict[str, Callable[[Sequence[str]], object]] = {
    "t2i": cli.main,
    "fill": cli_fill.main,
    "control": cli_control.main,
    "redux": cli_redux.main,
    "picture": cli_picture.main,
    "prompts": runs.sample_prompts,
    "geneval": geneval.main,
    "bench": bench.main,
    "flux": flux_main,
    "toca": toca_main,
}
PARSERS = {
    "t2i": cli.parser,
    "fill": cli_fill.parser,
    "control": cli_control.parser,
    "redux": cli_redux.parser,
    "picture": cli_picture.parser,
    "prompts": runs.prompts_parser,
    "geneval": geneval.parser,
    "bench": bench.parser,
}
NEEDED = {  # flags that a program cannot do without
    "fill": ["--img_cond_path", "picture.png", "--img_mask_path", "mask.png"],
    "control": ["--name", "flux-dev-canny", "--img_cond_path", "picture.png"],
    "redux": ["--img_cond_path", "picture.png"],
    "prompts": ["--prompt_file", "prompts.txt"],
    "geneval": ["metadata.jsonl"],
}
HUGE_PROMPTS = "".join(f"a {i}\n" for i in range(20))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good and bad inputs, where every program is run; nothing is ever added to it."""
    folder = tmp_path_factory.mktemp("place")
    Image.new("RGB", (64, 64), (200, 30, 60)).save(folder / "picture.png")
    Image.new("L", (64, 64), 255).save(folder / "mask.png")
    Image.new("L", (64, 32), 255).save(folder / "flat.png")
    Image.new("RGB", (60, 60)).save(folder / "odd.png")
    (folder / "half.png").write_bytes((folder / "picture.png").read_bytes()[:60])
    (folder / "text.png").write_text("no")
    (folder / "empty").touch()
    (folder / "folder").mkdir()
    (folder / "folder" / "img_0.jpg").write_bytes(b"x")
    (folder / "broken").mkdir()
    (folder / "broken" / "manifest.json").write_text("{")
    (folder / "foreign").mkdir()
    (folder / "foreign" / "manifest.json").write_text('{"a": 1}')
    (folder / "prompts.txt").write_text(HUGE_PROMPTS)
    (folder / "latin.txt").write_bytes("h\xfctte".encode("latin-1"))
    (folder / "metadata.jsonl").write_text('{"prompt": "a cow"}\n')
    for name, text in BAD_METADATA.items():
        (folder / f"{name}.jsonl").write_text(text)
    save_file({"img_in.weight": torch.zeros(3)}, folder / "few.safetensors")
    (folder / "web.safetensors").write_text("<!DOCTYPE html><html>")
    (folder / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    (folder / "model.gguf").write_bytes(b"GGUF" + bytes(60))
    (folder / "cut.safetensors").write_bytes((folder / "few.safetensors").read_bytes()[:-4])
    torch.save({"img_in.weight": Path("x")}, folder / "code.pt")
    return folder


BAD_METADATA = {
    "nothing": "\n",
    "brace": "{",
    "list": "[1]",
    "promptless": '{"tag": 1}',
    "number": '{"prompt": 3}',
    "nan": '{"prompt": "a", "x": NaN}',
    "surrogate": '{"prompt": "\\ud800"}',
}
NO_PICTURES = {"nowhere.png": "no such file", "text.png": "not a picture", "half.png": "picture", "folder": "no such file"}
Case = tuple[str, list[str], str]
ANY: list[tuple[list[str], str]] = [  # of every sampling program
    (["--num_steps", "0"], "--num_steps: must be a whole number of 1 to 1000"),
    (["--num_steps", "1000000000"], "--num_steps: must be"),
    (["--num_steps", "2.5"], "--num_steps: must be a whole number"),
    (["--guidance", "-5"], "--guidance: must be 0 to 1000"),
    (["--seed", "-1"], "--seed: must be"),
    (["--seed", "99999999999999999999"], "--seed: must be"),
    (["--device", "meta"], "--device meta"),
    (["--device", "xla"], "--device xla"),
    (["--device", "cuda:77"], "--device cuda:77: this machine has"),
    (["--device", ""], "--device|--ckpt|no .*safetensors"),
    (["--dtype", "fp8"], "--dtype: invalid choice"),
    (["--method", "magic"], "--method: invalid choice"),
    (["--preset", "toca99"], "--preset: invalid choice"),
    (["--cache_type", "none"], "--cache_type: invalid choice"),
    (["--ratio_scheduler", "x"], "--ratio_scheduler: invalid choice"),
    (["--method", "none", "--fresh_threshold", "4"], "--fresh_threshold: --method none has no such setting"),
    (["--method", "fora", "--fresh_ratio", "0.1"], "--fresh_ratio: --method fora has no such setting"),
    (["--method", "toca", "--fresh_ratio", "-0.5"], "--fresh_ratio: must be"),
    (["--method", "toca", "--fresh_threshold", "0"], "--fresh_threshold: must be"),
    (["--method", "taylorseer", "--max_order", "-1"], "--max_order: must be"),
    (["--lora_scale", "nan"], "--lora_scale: must be"),
    (["--offload", "perhaps"], "--offload: expected True or False"),
    (["--watermark", "2"], "--watermark: expected True or False"),
    (["--nonsense"], "unrecognized arguments: --nonsense"),
    (["--ckpt", "./nowhere.safetensors"], r"--ckpt names ./nowhere.safetensors"),
]
SIZED = [
    (["--width", "15"], "--width: must be a whole number of 16 to 16384"),
    (["--width", "100000", "--height", "100000"], "--width: must be"),
    (["--height", "1000000"], "--height: must be"),
    (["--height", "-16"], "--height: must be"),
]
CASES: list[Case] = [
    *((program, flags, said) for program in ("t2i", "prompts") for flags, said in ANY),
    *((program, flags, said) for program in ("fill", "control", "picture", "geneval") for flags, said in ANY[::4]),
    *(("redux", flags, said) for flags, said in ANY[::2] if flags[0] not in ("--device", "--ckpt")),
    *((program, flags, said) for program in ("t2i", "control", "redux", "picture", "prompts", "geneval") for flags, said in SIZED),
    ("flux", ["paint"], "there is no command 'paint'"),
    ("flux", ["t2i", "--name", "flux-pro"], "--name: invalid choice"),
    ("flux", ["--promp", "x"], "unrecognized arguments"),
    ("t2i", ["--prompt", "a\udcff"], "--prompt: must be text"),
    ("t2i", ["--guidance", "3"], "--guidance: flux-schnell was distilled without guidance"),
    ("t2i", ["--name", "flux-dev", "--keep_lora", "--lora", "x.safetensors"], "--keep_lora: adapters run beside the -lora models alone"),
    ("t2i", ["--name", "flux-dev", "--lora_scale", "0.5"], "--lora_scale: there is no adapter"),
    ("t2i", ["--watermark", "--width", "128", "--height", "128"], "--watermark needs 256 x 256"),
    ("picture", ["--output", "picture"], "not the name of a picture"),
    ("picture", ["--output", "picture.txt"], "not the name of a picture"),
    ("picture", ["--output", "folder"], "not the name of a picture"),
    ("picture", ["--output", "empty/a.png"], "is a file, not a folder"),
    ("picture", ["--output", "x" * 300 + ".png"], "is no name that a file can have"),
    ("picture", ["--output", "/proc/nowhere/a.png"], "--output .* cannot be written to"),
    ("prompts", ["--num_images_per_prompt", "0"], "--num_images_per_prompt: must be"),
    ("prompts", ["--num_images_per_prompt", "5000000"], "100000000 pictures are more than"),
    ("prompts", ["--batch_size", "-2"], "--batch_size: must be"),
    ("prompts", ["--prompt_file", "nowhere.txt"], "--prompt_file nowhere.txt cannot be read"),
    ("prompts", ["--prompt_file", "folder"], "--prompt_file folder cannot be read"),
    ("prompts", ["--prompt_file", "empty"], "holds no prompt"),
    ("prompts", ["--prompt_file", "latin.txt"], "is not UTF-8 text"),
    ("prompts", ["--output_dir", "empty"], "--output_dir empty: .* is a file, not a folder"),
    ("prompts", ["--output_dir", "y" * 300], "is no name that a file can have"),
    ("prompts", ["--model_name", "flux-dev-fill"], "--model_name/--name: invalid choice"),
    ("prompts", ["--guidance", "4"], "--guidance: flux-schnell was distilled without guidance"),
    ("geneval", ["--n_samples", "0"], "--n_samples: must be"),
    ("geneval", ["--steps", "0"], "--steps: must be"),
    *(("geneval", [f"{name}.jsonl"], f"{name}.jsonl.*(no prompt|not JSON)") for name in BAD_METADATA),
    ("geneval", ["nowhere.jsonl"], "nowhere.jsonl cannot be read"),
    ("geneval", ["folder"], "folder cannot be read"),
    *(
        (program, ["--img_cond_path", name], f"{name}.*{said}")
        for program in ("fill", "control", "redux")
        for name, said in NO_PICTURES.items()
    ),
    ("fill", ["--img_mask_path", "flat.png"], "must have one size.*flat.png is 64 x 32"),
    ("fill", ["--img_cond_path", "odd.png", "--img_mask_path", "odd.png"], "multiples of 32.*try 32 x 32"),
    ("fill", ["--width", "64"], "unrecognized arguments: --width"),
    ("control", ["--annotator", "someone/depth"], "--annotator: it finds depths, and flux-dev-canny wants edges"),
    (
        "control",
        ["--name", "flux-dev-depth", "--img_is_map", "--annotator", "x/y"],
        "--annotator: .* the picture is a map",
    ),
    ("control", ["--name", "flux-dev"], "--name: invalid choice"),
    ("redux", ["--siglip", "./nowhere"], "no SigLIP encoder at ./nowhere"),
    ("redux", ["--siglip", "folder"], "no SigLIP encoder at folder"),
    ("bench", ["--blocks", "0", "1"], "--blocks: must be"),
    ("bench", ["--steps", "0"], "--steps: must be"),
    ("bench", ["--batch", "0"], "--batch"),
    ("bench", ["--txt_tokens", "1000000"], "--txt_tokens: must be"),
    ("bench", ["--device", "meta"], "--device meta"),
    ("bench", ["--model", "flux-pro"], "--model: invalid choice"),
    ("bench", ["--methods", "magic"], "--methods: invalid choice"),
    ("bench", ["--output", "empty/bench.json"], "empty"),
    ("toca", ["plan", "flux-dev", "--width", "8"], "--width: must be"),
    ("toca", ["plan", "flux-dev", "--txt_tokens", "0"], "--txt_tokens: must be"),
    ("toca", ["memory", "flux-dev", "--batch", "nan"], "--batch: must be"),
    ("toca", ["flops", "flux-schnell", "--num_steps", "1e9"], "--num_steps: must be"),
]


def line_of(program: str, argv: list[str], place: Path) -> str:
    needed = NEEDED.get(program, [])
    if program == "geneval" and argv and not argv[0].startswith("-"):
        needed = []
    return refused(MAINS[program], [*needed, *argv], place)


@pytest.fixture(autouse=True)
def nothing_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variables, an empty `checkpoints/`."""
    monkeypatch.setattr("flux.files.CHECKPOINTS", tmp_path / "checkpoints")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize(("program", "argv", "said"), CASES, ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None)
def test_a_bad_command_line_is_refused(program: str, argv: list[str], said: str, place: Path) -> None:
    line = line_of(program, argv, place)
    assert re.search(said, line), line


@pytest.mark.parametrize("program", PARSERS)
def test_every_number_is_refused_by_its_flags_name(program: str, place: Path) -> None:
    cases = list(hopeless_numbers(PARSERS[program](), NO_NUMBERS if program in ("t2i", "bench") else NO_NUMBERS[:2]))
    assert len({flag for flag, _ in cases}) > 4
    for flag, word in cases:
        line = line_of(program, [word], place)
        assert f"{flag}: " in line and ("must be" in line or "invalid int value" in line), line


# ---- files of weights, all others being there ---------------------------------------------------------------------------------------

WEIGHTS: dict[str, tuple[list[str], str]] = {
    "few tensors": (["--ckpt", "few.safetensors"], "few.safetensors does not fit the model: missing: .*get it from"),
    "cut off": (["--ckpt", "cut.safetensors"], "cut.safetensors is not a safetensors file, or damaged"),
    "empty": (["--ckpt", "empty"], "empty is empty"),
    "web page": (["--ckpt", "web.safetensors"], "web.safetensors is a web page"),
    "lfs": (["--ckpt", "lfs.safetensors"], "lfs.safetensors is a pointer of Git LFS"),
    "gguf": (["--ckpt", "model.gguf"], "model.gguf is a GGUF file"),
    "code": (["--ckpt", "code.pt"], "code.pt is refused"),
    "ae is the transformer": (
        ["--ae", "PARTS/flux1-dev.safetensors"],
        "flux1-dev.* does not fit the model: it is a FLUX transformer",
    ),
    "no ae": (["--ae", "./nowhere"], "--ae names ./nowhere"),
    "adapter is a model": (["--lora", "PARTS/flux1-dev.safetensors"], "flux1-dev.safetensors: no LoRA in it"),
    "adapter missing": (["--lora", "./nowhere"], "--lora names ./nowhere.*--lora wants a LoRA"),
    "adapter empty": (["--lora", "empty"], "empty is empty"),
    "t5 missing": (["--t5", "./nowhere"], "no T5 encoder at ./nowhere"),
    "t5 a file": (["--t5", "few.safetensors"], "no T5 encoder at few.safetensors"),
    "t5 is clip": (["--t5", "PARTS/second"], "is no T5 encoder: --t5 wants one"),
    "clip is t5": (["--clip", "PARTS/first"], "is no CLIP encoder: --clip wants one"),
    "clip folder without anything": (["--clip", "folder"], "no CLIP encoder at folder"),
    "hub name not here": (["--t5", "someone/t5"], "no T5 encoder at someone/t5"),
}


@pytest.mark.parametrize("case", WEIGHTS)
@pytest.mark.parametrize("program", ["t2i", "prompts", "geneval", "picture"])
def test_weights_are_looked_at_first(case: str, program: str, place: Path, parts: Path, tiny: list[str]) -> None:
    """Each alone is wrong; what comes last is found as early."""
    flags, said = WEIGHTS[case]
    argv = [*tiny, *(flag.replace("PARTS", str(parts)) for flag in flags)]
    name = "--name" if program == "t2i" else "--model_name"
    line = line_of(program, [*(["metadata.jsonl"] if program == "geneval" else []), name, "flux-dev", *argv], place)
    assert re.search(said, line), line


DAMAGED: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no tokenizer": ("first", lambda folder: [path.unlink() for path in folder.glob("*token*")], "no T5 encoder.*has no tokenizer of T5"),
    "no weights": ("first", lambda folder: (folder / "model.safetensors").unlink(), "no T5 encoder.*holds no weights"),
    "cut off": ("second", lambda folder: _cut(folder / "model.safetensors"), "no CLIP encoder.*model.safetensors is not a safetensors"),
    "no configuration": ("second", lambda folder: (folder / "config.json").write_text("{"), "no CLIP encoder.*config.json cannot be read"),
}


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_encoders_are_found_first(case: str, place: Path, parts: Path, tiny: list[str], tmp_path: Path) -> None:
    name, damage, said = DAMAGED[case]
    folder = Path(shutil.copytree(parts / name, tmp_path / name))
    damage(folder)
    line = line_of("t2i", [*tiny, "--t5" if name == "first" else "--clip", str(folder)], place)
    assert re.search(said, line), line


MANIFESTS = {"broken": "manifest.json is damaged", "foreign": "is no manifest", "folder": "no manifest.json"}


@pytest.mark.parametrize("folder", MANIFESTS)
def test_damaged_and_foreign_manifests_are_named(folder: str, place: Path, tiny: list[str]) -> None:
    assert MANIFESTS[folder] in line_of("prompts", [*tiny, "--output_dir", folder], place)


def test_a_disk_too_small_is_found_first(place: Path, tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    said = r"--output_dir output: this run writes about \d+.\d MB, and the disk has 0.0 MB free"
    assert re.search(said, line_of("prompts", [*tiny, "--width", "512", "--height", "512"], place))


def test_weights_with_nan_are_refused_when_they_are_read(parts: Path, tiny: list[str], tmp_path: Path) -> None:
    state = load_file(parts / "flux1-schnell.safetensors")
    state["txt_in.bias"][0] = torch.nan
    save_file(state, tmp_path / "nan.safetensors")
    with pytest.raises(SystemExit, match=r"nan.safetensors: the tensor txt_in.bias holds NaN"):
        cli.main([*tiny, "--ckpt", str(tmp_path / "nan.safetensors"), "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
