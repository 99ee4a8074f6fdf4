"""T5 and its features on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tiny_parts import LENGTH, WIDTH
from transformers import T5Tokenizer

from pixart.t5 import HUB, T5Embedder, check_t5, encoder_identity, t5_source
from pixart.text_cache import TextCache, encode_missing
from toca.testing.parts import save_t5

CPU = torch.device("cpu")
TEXTS = ["a fox", "", "a very long text of more letters than fit"]


@pytest.fixture
def t5(parts: Path) -> T5Embedder:
    return T5Embedder(str(parts / "t5-v1_1-xxl"), CPU, model_max_length=LENGTH)


def test_texts_are_cut_or_padded_and_padding_takes_no_part(t5: T5Embedder) -> None:
    features, mask = t5.get_text_embeddings(TEXTS)
    assert features.shape == (3, LENGTH, WIDTH) and features.dtype == torch.float32
    assert mask.sum(dim=1).tolist() == [5, 1, LENGTH]  # pieces and the end of the text
    assert (mask.diff(dim=1) <= 0).all()
    t5.model_max_length = 5
    torch.testing.assert_close(t5.get_text_embeddings(["a fox"])[0], features[:1, :5])


def test_no_text_depends_on_its_batch(t5: T5Embedder) -> None:
    together = t5.get_text_embeddings(TEXTS)[0]
    for text, features in zip(TEXTS, together):
        torch.testing.assert_close(t5.get_text_embeddings([text])[0][0], features)


def test_t5_may_work_in_half_precision(parts: Path, t5: T5Embedder) -> None:
    half = T5Embedder(str(parts / "t5-v1_1-xxl"), CPU, "bf16", LENGTH).get_text_embeddings(TEXTS)[0]
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), t5.get_text_embeddings(TEXTS)[0], atol=0.1, rtol=0.1)


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match=r"no T5 encoder at .*nowhere: give --t5_path .*download.py --t5"):
        T5Embedder(str(tmp_path / "nowhere"), CPU)
    with pytest.raises(ValueError, match="8bit runs on a GPU, not on cpu: use bf16"):
        T5Embedder(str(tmp_path), CPU, "8bit")
    save_t5(tmp_path / "cut", WIDTH)
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"no T5 encoder at .*cut: .*damaged"):
        T5Embedder(str(tmp_path / "cut"), CPU)


def test_eight_bits_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart.t5.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs `pip install bitsandbytes accelerate`"):
        T5Embedder("any", torch.device("cuda"), "8bit")


def test_t5_is_found_above_its_folder_in_it_or_by_name(parts: Path, tmp_path: Path) -> None:
    folder = str(parts / "t5-v1_1-xxl")
    assert t5_source(str(parts), tmp_path) == t5_source(folder, tmp_path) == t5_source(None, parts) == folder
    assert t5_source("some/name", tmp_path) == "some/name" and t5_source(None, tmp_path) == HUB


def test_encoders_with_other_weights_or_precision_are_told_apart(tmp_path: Path) -> None:
    one, two, three = (save_t5(tmp_path / name, width) for name, width in (("a", 16), ("b", 16), ("c", 24)))
    assert encoder_identity(one, "fp32") == encoder_identity(two, "fp32")
    different = ((one, "fp32"), (one, "bf16"), (three, "fp32"), (HUB, "fp32"))
    assert len({encoder_identity(source, precision) for source, precision in different}) == 4


# ---- on disk -------------------------------------------------------------------------------------------------------------------------


def test_what_was_put_comes_back_padded_with_zeros(t5: T5Embedder, tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    assert encode_missing(cache, TEXTS, lambda: t5) == 3
    y, mask = cache.batch(TEXTS)
    features, expected_mask = t5.get_text_embeddings(TEXTS)
    assert torch.equal(mask, expected_mask) and torch.equal(y, features * expected_mask[..., None])


def test_a_text_is_encoded_once_whatever_comes_after(t5: T5Embedder, tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    assert encode_missing(cache, ["a", "b", "a"], lambda: t5) == 2
    assert encode_missing(cache, ["b", "c"], lambda: t5) == 1

    def unwanted() -> T5Embedder:
        raise AssertionError("T5 was loaded for nothing")

    assert encode_missing(cache, ["c", "b", "a"], unwanted) == 0


def test_processes_share_the_texts(t5: T5Embedder, tmp_path: Path) -> None:
    cache, texts = TextCache(tmp_path, "t5", LENGTH, WIDTH), [*"abcdefg", "a"]
    assert [encode_missing(cache, texts, lambda: t5, rank=rank, world=2) for rank in range(2)] == [4, 3]
    assert cache.batch(texts)[0].shape == (8, LENGTH, WIDTH)


def test_other_encoders_and_lengths_have_other_files(tmp_path: Path) -> None:
    caches = [TextCache(tmp_path, identity, length, WIDTH) for identity in "ab" for length in (1, 11)]
    paths = {cache.path(text) for cache in caches for text in ("", "1", "x" * 10_000)}
    assert len(paths) == 12 and all(len(path.name) < 60 for path in paths)


def test_a_damaged_file_is_named(t5: T5Embedder, tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    encode_missing(cache, ["a"], lambda: t5)
    cache.path("a").write_bytes(b"cut")
    with pytest.raises(ValueError, match="is damaged, remove it"):
        cache.batch(["a"])


def test_files_that_are_no_embedded_text_are_refused_before_anything_loads(t5: T5Embedder, tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    encode_missing(cache, ["a", "b"], lambda: t5)
    assert cache.missing(["b", "c", "a", "c"]) == ["c"]
    for wrong in (
        {"features": torch.zeros(3, WIDTH + 1)},
        {"features": torch.zeros(LENGTH + 1, WIDTH)},
        {"features": torch.zeros(0, WIDTH)},
        {"features": torch.zeros(WIDTH)},
        {"other": torch.zeros(3, WIDTH)},
        {"features": torch.zeros(3, WIDTH), "more": torch.zeros(1)},
    ):
        save_file(wrong, cache.path("a"))
        with pytest.raises(ValueError, match="is no embedded text of ours, remove it: it holds"):
            cache.missing(["b", "a"])
    cache.path("a").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is damaged, remove it: .* is empty"):
        cache.missing(["a"])
    save_file({"features": torch.full((3, WIDTH), torch.nan)}, cache.path("a"))
    with pytest.raises(ValueError, match="is damaged, remove it: it holds values that are not finite"):
        cache.batch(["a"])


def test_features_that_are_not_finite_are_not_kept(tmp_path: Path) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    with pytest.raises(ValueError, match="T5 gave features that are not finite for 'a fox'"):
        cache.put("a fox", torch.full((LENGTH, WIDTH), torch.inf), torch.ones(LENGTH))
    assert not list(tmp_path.iterdir())


def test_what_t5_does_not_read_of_a_text_is_said(t5: T5Embedder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = TextCache(tmp_path, "t5", LENGTH, WIDTH)
    encode_missing(cache, ["a fox"], lambda: t5)
    assert not capsys.readouterr().out
    encode_missing(cache, ["a fox", "a hen", "b" * LENGTH, "c" * 99], lambda: t5)
    assert capsys.readouterr().out == f"T5 reads the first {LENGTH} tokens of 2 texts, the first {'b' * LENGTH!r}...\n"


# ---- tokenizers ------------------------------------------------------------------------------------------------------------------------


def split(folder: Path, tokenizer: str | None) -> str:
    """T5 as diffusers lays it out: `text_encoder`, and its tokenizer in a folder beside it, or nowhere."""
    encoder = Path(save_t5(folder / "text_encoder", WIDTH))
    if tokenizer:
        (folder / tokenizer).mkdir()
    for file in encoder.glob("token*"):
        file.rename(folder / tokenizer / file.name) if tokenizer else file.unlink()
    return str(encoder)


def test_a_tokenizer_beside_the_encoder_is_taken(t5: T5Embedder, tmp_path: Path) -> None:
    source = split(tmp_path, "tokenizer")
    assert t5_source(str(tmp_path), tmp_path) == source
    check_t5(source, CPU, "fp32", WIDTH)
    beside = T5Embedder(source, CPU, model_max_length=LENGTH)
    assert torch.equal(beside.get_text_embeddings(TEXTS)[0], t5.get_text_embeddings(TEXTS)[0])
    before = encoder_identity(source, "fp32")
    (tmp_path / "tokenizer" / "special_tokens_map.json").write_text("{}", encoding="utf-8")
    assert encoder_identity(source, "fp32") != before


def test_a_tokenizer_that_is_missing_or_knows_no_words_is_refused(tmp_path: Path) -> None:
    """transformers makes an empty one, to which all prompts are alike."""
    source = split(tmp_path / "none", None)
    for refuse in (lambda: check_t5(source, CPU, "fp32", WIDTH), lambda: T5Embedder(source, CPU)):
        with pytest.raises(ValueError, match=r"no T5 encoder at .*: give --t5_path .*has no tokenizer of T5"):
            refuse()
    wordless = save_t5(tmp_path / "wordless", WIDTH)
    T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)], extra_ids=0).save_pretrained(wordless)
    with pytest.raises(ValueError, match="knows no words"):
        T5Embedder(wordless, CPU)


def test_a_t5_is_checked_without_loading_it(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixart.t5.load_encoder", None)
    check_t5(str(parts / "t5-v1_1-xxl"), CPU, "fp32", WIDTH)
    with pytest.raises(ValueError, match="gives features of width 16; the model reads 4096"):
        check_t5(str(parts / "t5-v1_1-xxl"), CPU, "fp32", 4096)
    with pytest.raises(ValueError, match="8bit runs on a GPU, not on cpu"):
        check_t5(str(parts / "t5-v1_1-xxl"), CPU, "8bit", WIDTH)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no T5 encoder at nobody/nothing: give --t5_path"):
        check_t5("nobody/nothing", CPU, "fp32", WIDTH)
