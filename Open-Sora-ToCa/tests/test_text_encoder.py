"""The text encoder, and how prompts are cleaned before it reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_folder import read_json
from tiny_parts import TEXT_LENGTH, TEXT_WIDTH

from opensora.models.text_encoder import T5Encoder
from opensora.pipeline import encode_texts
from toca.loading.caption_cleaning import clean_caption
from toca.testing.parts import save_t5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return Path(save_t5(tmp_path_factory.mktemp("t5") / "t5", TEXT_WIDTH))


@pytest.fixture(scope="module")
def encoder(folder) -> T5Encoder:
    return T5Encoder(str(folder), TEXT_LENGTH)


@pytest.mark.parametrize("case", read_json("inference_helpers.json")["text_cleaning"], ids=lambda case: case["in"][:20])
def test_prompts_are_cleaned_as_published(case) -> None:
    assert clean_caption(case["in"]) == case["out"]


def test_padding_does_not_take_part(encoder) -> None:
    """A text's states are those of its tokens alone, without padding."""
    out = encoder.encode(["a fox", "a longer text"])
    assert out["y"].shape == (2, 1, TEXT_LENGTH, TEXT_WIDTH) and encoder.output_dim == TEXT_WIDTH
    lengths = out["mask"].sum(dim=1)
    assert lengths[0] < lengths[1] < TEXT_LENGTH and (out["mask"].diff(dim=1) <= 0).all()
    ids = encoder.tokenizer(["a fox"], return_tensors="pt")["input_ids"]
    alone = encoder.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(out["y"][0, :, : lengths[0]], alone)


def test_long_texts_are_cut_and_empty_ones_have_an_end(encoder) -> None:
    out = encoder.encode(["x " * 3 * TEXT_LENGTH, ""])
    assert out["mask"].sum(dim=1).tolist() == [TEXT_LENGTH, 1]


def test_texts_are_encoded_once(encoder, monkeypatch) -> None:
    seen = []
    encode = encoder.encode
    monkeypatch.setattr(encoder, "encode", lambda texts: seen.append(list(texts)) or encode(texts))
    texts = encode_texts(encoder, ["a fox", "a hen", "a fox", "a cat"], batch_size=2)
    assert seen == [["a fox", "a hen"], ["a cat"]] and texts.keys() == {"a fox", "a hen", "a cat"}
    assert all(text.shape == (int(n), TEXT_WIDTH) for text, n in zip(texts.values(), encode(list(texts))["mask"].sum(dim=1)))


def test_half_precision(folder) -> None:
    assert T5Encoder(str(folder), TEXT_LENGTH, dtype="bf16").encode(["a fox"])["y"].dtype is torch.bfloat16
    with pytest.raises(ValueError, match="there is no dtype 'int8'; choose from fp32, bf16"):
        T5Encoder(str(folder), dtype="int8")


def test_a_folder_of_something_else_is_refused(folder, tmp_path) -> None:
    from transformers import BertConfig

    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a model of type 'bert', wanted t5"):
        T5Encoder(str(tmp_path))
