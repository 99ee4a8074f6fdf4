"""T5 and its features on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_parts import LENGTH, WIDTH

from pixart.t5 import HUB, T5Embedder, encoder_identity, t5_source
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
