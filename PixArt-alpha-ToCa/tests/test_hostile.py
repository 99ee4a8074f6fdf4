"""Bad command lines of every program: one line, before any network is built, nothing written."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import small_pixart
from tiny_parts import FORK, TINY, WIDTH, flags, save_pixart

import pixart.spec
import sample
from pixart import bench, runs
from pixart.flags import RunSettings, parse
from pixart.prompts import MAX_CHARACTERS
from pixart.weights import save_diffusers
from toca.cli.flags import Parser
from toca.cli.main import main as toca
from toca.testing.hostile import NO_NUMBERS, hopeless_numbers, refused
from toca.testing.parts import save_clip, save_t5, save_vae

sys.path.insert(0, str(FORK / "tools"))
import convert_diffusers_to_pixart_alpha as backward
import convert_pixart_alpha_to_diffusers as forward

import download

Main = Callable[[Sequence[str]], object]


def inference(argv: Sequence[str]) -> None:
    runs.main(None, argv)


PROGRAMS: dict[str, tuple[Main, Callable[[], Parser]]] = {
    "inference": (inference, runs.parser),
    "sample": (sample.main, sample.parser),
    "bench": (bench.main, bench.parser),
    "forward": (forward.main, forward.parser),
    "backward": (backward.main, backward.parser),
    "download": (download.main, download.parser),
}


@pytest.fixture(scope="module")
def place(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of good and bad files, which nothing may change. Prompts of `known.txt` are embedded in `texts`."""
    with pytest.MonkeyPatch.context() as patch:
        for size, config in TINY.items():
            patch.setitem(pixart.spec.CONFIGS, size, config)
        patch.setenv("HF_HUB_OFFLINE", "1")
        folder = tmp_path_factory.mktemp("place")
        shutil.copytree(parts, folder / "good")
        write_prompts(folder)
        write_networks(folder)
        write_texts(folder)
        write_folders(folder)
        patch.setattr(download, "PRETRAINED", folder / "file" / "inside")
        yield folder


def write_prompts(folder: Path) -> None:
    prompts = {
        "prompts": "a fox\na hen\n",
        "known": "a known fox\n",
        "cut": "a fox cut\n",
        "empty": "\n  \n",
        "ratio": "a fox --ar wide\n",
        "sizes": "a fox\na hen --ar 2:1\n",
        "long": "x" * (MAX_CHARACTERS + 1),
        "nul": "a\0fox\n",
    }
    for name, text in prompts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    (folder / "latin.txt").write_bytes("ein Füchslein".encode("latin-1"))
    (folder / "file").write_text("a file", encoding="utf-8")


def write_networks(folder: Path) -> None:
    config, state = TINY[256], {key: value.contiguous() for key, value in small_pixart(TINY[256]).state_dict().items()}
    save_file(state, folder / "plain.safetensors")
    save_file({key: value for key, value in state.items() if not key.endswith("mlp.fc1.bias")}, folder / "lacking.safetensors")
    save_file({"blocks.0.attn.qkv.lora_A.weight": torch.zeros(1)}, folder / "lora.safetensors")
    (folder / "cut.safetensors").write_bytes((folder / "plain.safetensors").read_bytes()[:-8])
    files = {"none.pth": b"", "gguf.pth": b"GGUF" + bytes(60), "page.pth": b"<!DOCTYPE html>", "noise.pth": bytes(range(99))}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    torch.save({"state_dict": {1: torch.zeros(1)}}, folder / "numbers.pth")
    torch.save([1, 2], folder / "list.pth")
    save_pixart(folder / "epoch_1_step_2.pth", config, state_dict_ema=state)
    save_diffusers(folder / "diffusers", state, config)
    save_diffusers(folder / "other" / "transformer", small_pixart(TINY[512]).state_dict(), TINY[512])
    save_clip(folder / "clip", WIDTH)
    save_t5(folder / "wide", 24)
    save_t5(folder / "no_words", WIDTH)
    for path in (folder / "no_words").glob("token*"):
        path.unlink()
    save_t5(folder / "cut_t5", WIDTH)
    weights = folder / "cut_t5" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    save_t5(folder / "broken_t5", WIDTH)
    (folder / "broken_t5" / "config.json").write_text("{", encoding="utf-8")
    save_vae(folder / "shallow", blocks=2)
    save_vae(folder / "cut_vae")
    weights = folder / "cut_vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    save_file({"y_embedder.y_embedding": torch.zeros(3, WIDTH)}, folder / "short.safetensors")


def write_texts(folder: Path) -> None:
    """Embedded texts: of "a known fox" a good one, of others damaged ones."""
    argv = [*flags(folder / "good", folder, "--prompt", "a known fox")]
    cache = RunSettings.from_args(parse(sample.parser(), argv), ["a known fox"]).embedded_texts()
    cache.put("a known fox", torch.zeros(3, WIDTH), torch.ones(3))
    cache.put("a fox cut", torch.zeros(3, WIDTH), torch.ones(3))
    cache.path("a fox cut").write_bytes(b"cut")
    foreign = type(cache)(folder / "foreign_texts", cache.identity, cache.length, cache.width)
    foreign.put("a fox", torch.zeros(3, WIDTH + 1), torch.ones(3))


def write_folders(folder: Path) -> None:
    manifests = {"foreign": "[]", "broken": "{", "unsettled": '{"runs": []}', "other_run": '{"settings": {}, "runs": []}'}
    for name, manifest in manifests.items():
        (folder / name).mkdir()
        (folder / name / "manifest.json").write_text(manifest, encoding="utf-8")
        (folder / name / "000000.png").touch()
    (folder / "pictures").mkdir()
    (folder / "pictures" / "000000.png").touch()
    (folder / "taken.npz").touch()
    (folder / "sealed").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)


RUN: list[tuple[str, str]] = [  # of both programs that sample: flags, and what the line says
    ("--image_size 100", "--image_size: invalid choice: 100"),
    ("--image_size 1000000", "--image_size: invalid choice"),
    ("--sampling_algo ddim", "--sampling_algo: invalid choice"),
    ("--step 0", "--step: must be a whole number of 1 to 1000"),
    ("--step 1001", "--step: must be"),
    ("--step 2.5", "--step: must be"),
    ("--cfg_scale 0.5", "--cfg_scale: must be 1 to 1000"),
    ("--seed -1", "--seed: must be a whole number of 0 to"),
    ("--seed 18446744073709551616", "--seed: must be"),
    ("--preset magic", "--preset: invalid choice"),
    ("--method magic", "--method: invalid choice"),
    ("--fresh_threshold 0", "--fresh_threshold: must be"),
    ("--fresh_ratio -0.1", "--fresh_ratio: must be"),
    ("--cache_type magic", "--cache_type: invalid choice"),
    ("--ratio_scheduler magic", "--ratio_scheduler: invalid choice"),
    ("--force_fresh magic", "--force_fresh: invalid choice"),
    ("--token_bucket 0", "--token_bucket: must be"),
    ("--method taylorseer --max_order -1", "--max_order: must be"),
    ("--method none --fresh_ratio 0.3", "--method none has no such setting"),
    ("--method fora --cache_type norm", "--method fora has no such setting"),
    ("--preset dpm20 --fresh_threshold 3", "--method none has no such setting"),
    ("--method toca --max_order 2", "--method toca has no such setting"),
    ("--clean_caption maybe", "--clean_caption: expected True or False"),
    ("--dtype fp8", "--dtype: invalid choice"),
    ("--device nonsense", "--device nonsense: no such kind of device"),
    ("--device meta", "--device meta: this machine has none"),
    ("--device xla", "--device xla"),
    ("--device cuda:77", "--device cuda:77: this machine has"),
    ("--t5_device meta", "--t5_device meta: this machine has none"),
    ("--t5_device nonsense", "--t5_device nonsense: no such kind"),
    ("--t5_precision fp16", "--t5_precision: invalid choice"),
    ("--t5_precision 8bit", "8bit runs on a GPU, not on cpu: use bf16"),
    ("--unknown 1", "unrecognized arguments: --unknown"),
    ("--model nowhere.pth", "unrecognized arguments: --model"),  # no abbreviations
    ("--model_path", "--model_path: expected one argument"),
    ("--model_path nowhere.pth", "no checkpoint nowhere.pth: get it from"),
    ("--model_path none.pth", "none.pth is empty"),
    ("--model_path gguf.pth", "gguf.pth is a GGUF file"),
    ("--model_path page.pth", "page.pth is a web page"),
    ("--model_path noise.pth", "noise.pth is refused"),
    ("--model_path list.pth", "list.pth holds a list"),
    ("--model_path numbers.pth", "are no names"),
    ("--model_path cut.safetensors", "cut.safetensors is not a safetensors file, or damaged"),
    ("--model_path lacking.safetensors", "does not fit the model: missing: blocks.0.mlp.fc1.bias"),
    ("--model_path lora.safetensors", "it is a LoRA"),
    ("--model_path good/512.pth", "good/512.pth is a checkpoint for 512 pixels, not for --image_size 256"),
    ("--model_path other", "other/transformer is a checkpoint for 512 pixels, not for --image_size 256"),
    ("--model_path sealed", "sealed holds no weights"),
    ("--model_path good/vae", "it is an AutoencoderKL"),
    ("--ema", "--ema: good/256.pth has no averaged weights (state_dict_ema); it has only state_dict"),
    ("--ema --model_path plain.safetensors", "has no averaged weights (state_dict_ema); it has one set of weights alone"),
    ("--ema --model_path diffusers", "has no averaged weights"),
    ("--vae nowhere", "no VAE nowhere: give its folder or hub name with --vae"),
    ("--vae nobody/nothing", "no VAE nobody/nothing: give its folder"),
    ("--vae shallow", "VAE shallow has 4 latent channels and stride 2"),
    ("--vae cut_vae", "no VAE cut_vae"),
    ("--vae good/t5-v1_1-xxl", "has None latent channels"),
    ("--vae file", "no VAE file"),
    ("--t5_path nowhere", "no T5 encoder at nowhere: give --t5_path"),
    ("--t5_path nobody/nothing", "no T5 encoder at nobody/nothing"),
    ("--t5_path clip", "holds a model of type 'clip_text_model', wanted t5"),
    ("--t5_path wide", "gives features of width 24; the model reads 16"),
    ("--t5_path no_words", "no_words has no tokenizer of T5, nor a folder tokenizer beside it"),
    ("--t5_path cut_t5", "no T5 encoder at cut_t5"),
    ("--t5_path broken_t5", "config.json cannot be read"),
    ("--text_cache file", "--text_cache file: file is a file, not a folder"),
    ("--text_cache file/inside", "file is a file, not a folder"),
    ("--text_cache " + "x" * 300, "is no name that a file can have"),
    ("--text_cache foreign_texts", "is no embedded text of ours, remove it"),
]
INFERENCE = [
    ("--txt_file nowhere.txt", "--txt_file nowhere.txt cannot be read: No such file"),
    ("--txt_file good", "--txt_file good cannot be read: Is a directory"),
    ("--txt_file empty.txt", "--txt_file empty.txt holds no prompt"),
    ("--txt_file latin.txt", "--txt_file latin.txt is not UTF-8 text"),
    ("--txt_file nul.txt", "--txt_file nul.txt is no text"),
    ("--txt_file long.txt", f"prompt 1 has {MAX_CHARACTERS + 1} characters"),
    ("--txt_file ratio.txt", "prompt 1: '--ar wide' is no aspect ratio"),
    ("--txt_file cut.txt", "is damaged, remove it"),
    ("--txt_file sizes.txt --npz --image_size 1024 --model_path good/1024.pth", "--npz wants pictures of one size"),
    ("--bs 0", "--bs: must be a whole number of 1 to 10000"),
    ("--bs 1000000000", "--bs: must be"),
    ("--test_FLOPs --bs 0", "--bs: must be"),
    ("--test_FLOPs --step 0", "--step: must be"),
    ("--save_name ../up", "--save_name '../up': not the name of a folder"),
    ("--save_name /etc/run", "not the name of a folder"),
    ("--save_name .", "not the name of a folder"),
    ("--save_name a/b", "not the name of a folder"),
    ("--save_name " + "x" * 256, "is no name that a file can have"),
    ("--dataset a/b", "--dataset 'a/b': not the name of a folder"),
    ("--dataset " + "x" * 256, "is no name that a file can have"),
    ("--output_dir file", "file is a file, not a folder"),
    ("--output_dir file/inside", "file is a file, not a folder"),
    ("--save_name file", "file is a file, not a folder"),
    ("--save_name foreign", "foreign/manifest.json is no manifest of ours: it lacks 'settings'"),
    ("--save_name broken", "broken/manifest.json is damaged, no JSON"),
    ("--save_name unsettled", "it lacks 'settings'"),
    ("--save_name other_run", "other_run holds samples of a run with other settings"),
    ("--save_name pictures", "pictures holds pictures but no manifest.json"),
    ("--save_name taken --npz", "taken.npz is there, and of no run in taken"),
]
SAMPLE = [
    ("--output pictures", "--output pictures: not the name of a picture, try one that ends in .png"),
    ("--output fox.txt", "--output fox.txt: not the name of a picture"),
    ("--output fox", "--output fox: not the name of a picture"),
    ("--output .png", "not the name of a picture"),
    ("--output sealed.png/fox.png --text_cache file", "--text_cache file"),
    ("--output file/fox.png", "file is a file, not a folder"),
    ("--output " + "x" * 300 + ".png", "is no name that a file can have"),
    ("--bs 2", "unrecognized arguments: --bs 2"),
]
OTHERS = [
    ("bench", "--image_size 100", "--image_size: invalid choice"),
    ("bench", "--step 1", "--step: must be"),
    ("bench", "--text_tokens 0", "--text_tokens: must be"),
    ("bench", "--depth 0", "--depth: must be"),
    ("bench", "--methods magic", "--methods: invalid choice"),
    ("bench", "--dtype fp8", "--dtype: invalid choice"),
    ("bench", "--device meta", "--device meta: this machine has none"),
    ("bench", "--device cuda:77", "--device cuda:77: this machine has"),
    ("forward", "", "one of the arguments --output --dump_path is required"),
    ("forward", "--output a --dump_path b", "not allowed with argument"),
    ("forward", "--output file --model_path good/1024.pth", "--output file: file is a file, not a folder"),
    ("forward", "--dump_path file --model_path good/1024.pth", "file is a file, not a folder"),
    ("forward", "--output pictures --model_path good/1024.pth", "pictures is not empty: remove it, or choose another folder"),
    ("forward", "--output new --orig_ckpt_path nowhere.pth", "no checkpoint nowhere.pth"),
    ("forward", "--output new --orig_ckpt_path good/256.pth", "is a checkpoint for 256 pixels, not for --image_size 1024"),
    ("forward", "--output new --image_size 256 --model_path good/256.pth --ema", "--ema: good/256.pth has no averaged weights"),
    ("forward", "--output new --image_size 256 --model_path diffusers", "diffusers is in diffusers' layout already"),
    ("forward", "--output new --model_path good/1024.pth --null_text null.pth", "--null_text null.pth: the name must end in .safetensors"),
    ("forward", "--output new --model_path good/1024.pth --null_text good.safetensors/a.safetensors --ema", "--ema"),
    ("forward", "--output new --image_size 7", "--image_size: invalid choice"),
    ("backward", "--output a.safetensors", "the following arguments are required: --folder"),
    ("backward", "--folder nowhere --output a.safetensors", "--folder nowhere: there is no such folder"),
    ("backward", "--folder diffusers --output a.pth", "--output a.pth: the name must end in .safetensors"),
    ("backward", "--folder diffusers --output file/a.safetensors", "file is a file, not a folder"),
    ("backward", "--folder diffusers --output a.safetensors", "is a checkpoint for 256 pixels, not for --image_size 1024"),
    ("backward", "--folder plain.safetensors --image_size 256 --output a.safetensors", "holds a PixArt checkpoint, not diffusers' model"),
    ("backward", "--folder sealed --image_size 256 --output a.safetensors", "sealed holds no weights"),
    ("backward", "--folder diffusers --image_size 256 --output a.safetensors --t5_path nowhere", "no T5 encoder at nowhere"),
    ("backward", "--folder diffusers --image_size 256 --output a.safetensors --t5_path wide", "gives features of width 24"),
    ("backward", "--folder diffusers --image_size 256 --output a.safetensors --t5_path good --null_text good/256.pth", "give one of them"),
    ("backward", "--folder diffusers --image_size 256 --output a.safetensors --null_text lora.safetensors", "holds no y_embedder"),
    ("backward", "--folder diffusers --image_size 256 --output a.safetensors --null_text nowhere", "there is no checkpoint nowhere"),
    (
        "backward",
        "--folder diffusers --image_size 256 --output a.safetensors --null_text short.safetensors",
        "the null text is (3, 16)",
    ),
    ("download", "--models 100", "--models: invalid choice"),
    ("download", "--models", "nothing to fetch"),
    ("download", "--model_names PixArt.pth", "--model_names: invalid choice"),
    ("download", "--models 256", "file is a file, not a folder"),
    ("toca", "plan pixart --step 0", "--step: must be"),
    ("toca", "flops pixart --images 0", "--images: must be"),
    ("toca", "memory pixart --text_tokens 121", "--text_tokens: must be"),
    ("toca", "table pixart --preset magic", "--preset: invalid choice"),
    ("toca", "bench pixart --depth 0", "--depth: must be"),
]


def run(program: str, argv: Sequence[str], place: Path) -> str:
    main = toca if program == "toca" else PROGRAMS[program][0]
    good = flags(Path("good"), Path(), "--step", "2")
    before = {"inference": [*good, "--txt_file", "prompts.txt", "--output_dir", "."], "sample": [*good, "--prompt", "a fox"]}
    return refused(main, [*before.get(program, []), *argv], place)


@pytest.mark.parametrize(("flags", "message"), RUN + INFERENCE, ids=lambda text: text[:60])
def test_a_prompt_file(flags: str, message: str, place: Path) -> None:
    assert message in run("inference", flags.split(), place)


@pytest.mark.parametrize(("flags", "message"), RUN + SAMPLE, ids=lambda text: text[:60])
def test_a_picture(flags: str, message: str, place: Path) -> None:
    assert message in run("sample", flags.split(), place)


@pytest.mark.parametrize(("program", "flags", "message"), OTHERS, ids=lambda text: text[:60])
def test_other_programs(program: str, flags: str, message: str, place: Path) -> None:
    assert message in run(program, flags.split(), place)


@pytest.mark.parametrize(
    "prompt", ["", "   ", "a fox --ar 0:1", "a \udcff fox", "x" * (MAX_CHARACTERS + 1)], ids=lambda text: repr(text[:20])
)
def test_a_prompt(prompt: str, place: Path) -> None:
    assert "prompt" in run("sample", ["--prompt", prompt], place)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_number_is_refused_by_its_flag(program: str, place: Path) -> None:
    for flag, word in hopeless_numbers(PROGRAMS[program][1](), NO_NUMBERS[:3] if program == "sample" else NO_NUMBERS):
        assert flag in run(program, [word], place)


def test_t5_is_not_asked_for_where_all_texts_are_known(place: Path) -> None:
    """The next thing that is wrong is said instead."""
    line = run("inference", ["--txt_file", "known.txt", "--save_name", "file"], place)
    assert "file is a file, not a folder" in line
    settings = RunSettings.from_args(
        parse(sample.parser(), [*flags(place / "good", place), "--prompt", "", "--t5_precision", "fp32"]), ["a known fox"]
    )
    assert not settings.embedded_texts().missing(settings.texts)


def test_a_manifest_of_the_table_is_a_real_one(place: Path) -> None:
    assert json.loads((place / "other_run" / "manifest.json").read_text(encoding="utf-8")) == {"settings": {}, "runs": []}
    assert load_file(place / "plain.safetensors")
