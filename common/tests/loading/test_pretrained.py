"""Encoders, tokenizers and processors: whole ones load, and what is missing, cut off or of another kind is one clear error."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    SiglipImageProcessor,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from toca.loading.pretrained import check_encoder, is_hub_name, load_encoder, load_processor, load_tokenizer, tokenizer_folder

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLIP = ("clip", "clip_text_model")


def save_t5(folder: Path) -> Path:
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("\u2581" + x, -2.0) for x in LETTERS), *((x, -3.0) for x in LETTERS)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)).save_pretrained(folder)
    return folder


def save_clip(folder: Path, more: int = 0) -> Path:
    pieces = [*LETTERS, *(x + "</w>" for x in LETTERS), *(f"<{i}>" for i in range(more)), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2)
    CLIPTextModel(CLIPTextConfig(vocab_size=len(vocab), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_t5(folder / "t5")
    save_clip(folder / "clip")
    return folder


@pytest.fixture
def t5(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "t5", tmp_path / "t5")


@pytest.fixture
def clip(saved: Path, tmp_path: Path) -> Path:
    return shutil.copytree(saved / "clip", tmp_path / "clip")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def move_tokenizer(folder: Path, to: Path) -> None:
    to.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "special_tokens_map.json"):
        if (folder / file).is_file():
            (folder / file).rename(to / file)


# ---- encoders -------------------------------------------------------------------------------------------------------------------------


def test_whole_folders_pass_and_load(t5: Path, clip: Path) -> None:
    check_encoder(t5)
    check_encoder(clip, types=CLIP)
    assert not load_encoder(T5EncoderModel, t5).training
    assert load_tokenizer(AutoTokenizer, t5)("cat")["input_ids"] != load_tokenizer(T5Tokenizer, t5)("dog")["input_ids"]
    assert len(load_tokenizer(AutoTokenizer, str(clip))) == 54


def test_hub_names_pass_and_other_names_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_encoder("google/t5-v1_1-xxl")
    assert tokenizer_folder("google/t5-v1_1-xxl") == "google/t5-v1_1-xxl"
    for name in (tmp_path / "nowhere", "nowhere", "./a/b", "~/a"):
        assert not is_hub_name(name)
        with pytest.raises(ValueError, match="is neither a folder nor a hub name"):
            check_encoder(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google" / "t5").mkdir(parents=True)
    assert not is_hub_name("google/t5")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "has no config.json"),
        (b"{", "config.json cannot be read"),
        (b"\xff\xfe", "config.json cannot be read"),
        (b"[]", "is no configuration"),
        (b"{}", "holds a model of type None, wanted t5"),
        (b'{"model_type": "bert"}', "holds a model of type 'bert', wanted t5"),
    ],
)
def test_a_configuration_that_is_no_encoders(t5: Path, content: bytes | None, problem: str) -> None:
    (t5 / "config.json").unlink()
    if content is not None:
        (t5 / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match=problem):
        check_encoder(t5)


def test_weights_that_are_missing_or_cut_off_are_found_before_loading(t5: Path) -> None:
    whole = (t5 / "model.safetensors").read_bytes()
    (t5 / "model.safetensors").write_bytes(whole[:-8])
    with pytest.raises(ValueError, match=r"model\.safetensors is not a safetensors file, or damaged"):
        check_encoder(t5)
    with pytest.raises(ValueError, match=r"the weights in .*t5 are damaged"):
        load_encoder(T5EncoderModel, t5)
    (t5 / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        check_encoder(t5)


def test_a_shard_that_is_missing_is_found_before_loading(t5: Path) -> None:
    (t5 / "model.safetensors").rename(t5 / "model-1.safetensors")
    keys = load_file(t5 / "model-1.safetensors")
    names = {key: f"model-{1 + (key == 'shared.weight')}.safetensors" for key in keys}
    (t5 / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    with pytest.raises(ValueError, match=r"lacks model-2\.safetensors"):
        check_encoder(t5)
    save_file({"shared.weight": keys["shared.weight"]}, t5 / "model-2.safetensors")
    check_encoder(t5)


def test_weights_that_are_not_finite_or_of_other_sizes(t5: Path) -> None:
    state = load_file(t5 / "model.safetensors")
    key = "encoder.final_layer_norm.weight"
    for bad, problem in ((torch.full((16,), torch.nan), f"{key} holds NaN"), (torch.ones(8), "are damaged, or not for its config.json")):
        save_file({**state, key: bad}, t5 / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=problem):
            load_encoder(T5EncoderModel, t5)


def test_code_that_comes_with_a_model_is_never_run(t5: Path) -> None:
    ran = t5 / "ran"
    (t5 / "own.py").write_text(f"open({str(ran)!r}, 'w')\nclass Own: pass\n")
    for file, changes in {
        "tokenizer_config.json": dict(tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]}),
        "config.json": dict(auto_map={"AutoConfig": "own.Own"}, model_type="own"),
    }.items():
        content = json.loads((t5 / file).read_text())
        (t5 / file).write_text(json.dumps(content | changes))
    with pytest.raises(ValueError, match="wants to run code of its own") as error:
        load_tokenizer(AutoTokenizer, t5)
    assert "trust_remote_code" not in str(error.value) and not ran.exists()


# ---- tokenizers -----------------------------------------------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer(t5: Path, tmp_path: Path) -> None:
    move_tokenizer(t5, tmp_path / "elsewhere")
    for check in (check_encoder, tokenizer_folder, lambda folder: load_tokenizer(AutoTokenizer, folder)):
        with pytest.raises(ValueError, match="t5 has no tokenizer of T5, nor a folder tokenizer beside it"):
            check(t5)
    check_encoder(t5, tokenizer=False)


@pytest.mark.parametrize(
    ("name", "beside"), [("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2"), ("t5", "tokenizer"), ("t5", "tokenizer_2")]
)
def test_the_tokenizer_beside_an_encoder_is_taken(t5: Path, tmp_path: Path, name: str, beside: str) -> None:
    folder = t5.rename(tmp_path / name)
    move_tokenizer(folder, tmp_path / beside)
    assert tokenizer_folder(folder) == tmp_path / beside
    check_encoder(folder)
    assert len(load_tokenizer(AutoTokenizer, folder)) == 55


def test_of_two_tokenizers_beside_an_encoder_the_one_of_its_kind(t5: Path, clip: Path, tmp_path: Path) -> None:
    move_tokenizer(clip, tmp_path / "tokenizer")
    move_tokenizer(t5, tmp_path / "tokenizer_2")
    for encoder in (t5, t5.rename(tmp_path / "text_encoder_2")):
        if encoder.is_dir():
            assert tokenizer_folder(encoder) == tmp_path / "tokenizer_2"
    assert tokenizer_folder(clip) == tmp_path / "tokenizer"
    shutil.rmtree(tmp_path / "tokenizer_2")
    with pytest.raises(ValueError, match="has no tokenizer of T5, nor a folder tokenizer_2 beside it"):
        tokenizer_folder(tmp_path / "text_encoder_2")


def test_a_tokenizer_without_words_or_with_too_many(t5: Path, tmp_path: Path) -> None:
    T5Tokenizer(extra_ids=0).save_pretrained(t5)
    with pytest.raises(ValueError, match=r"the tokenizer in .*t5 knows no words"):
        load_tokenizer(AutoTokenizer, t5)
    (t5 / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the tokenizer in .*t5 cannot be loaded"):
        load_tokenizer(AutoTokenizer, t5)
    small, large = save_clip(tmp_path / "small"), save_clip(tmp_path / "large", more=90)
    shutil.copy(large / "tokenizer.json", small)
    with pytest.raises(ValueError, match="is for another encoder: it has tokens up to 143, the encoder 54 of them"):
        load_tokenizer(AutoTokenizer, small)


# ---- processors -----------------------------------------------------------------------------------------------------------------------


def test_processors_are_checked(tmp_path: Path) -> None:
    SiglipImageProcessor(size=dict(height=28, width=28)).save_pretrained(tmp_path / "good")
    assert load_processor(SiglipImageProcessor, tmp_path / "good", side=28)
    with pytest.raises(ValueError, match="makes 28 x 28 pixels, the model takes 384 x 384"):
        load_processor(SiglipImageProcessor, tmp_path / "good", side=384)
    SiglipImageProcessor(size=dict(height=28, width=28), rescale_factor=1e-12).save_pretrained(tmp_path / "flat")
    with pytest.raises(ValueError, match="does not tell black from white"):
        load_processor(SiglipImageProcessor, tmp_path / "flat")
    with pytest.raises(ValueError, match="nowhere cannot be loaded"):
        load_processor(SiglipImageProcessor, tmp_path / "nowhere")
