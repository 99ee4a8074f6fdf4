"""With a small random CLIP: pairs, batches, and the scale of tables whose pictures were rescaled twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from toca.metrics.clip import ClipScorer

CPU = torch.device("cpu")
WORDS = ["<pad>", "<unk>", "<end>", "a", "red", "blue", "fox", "cat"]
SMALL = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    text = dict(SMALL, vocab_size=len(WORDS), max_position_embeddings=8, eos_token_id=2, bos_token_id=2, pad_token_id=0)
    config = CLIPConfig(text_config=text, vision_config=dict(SMALL, image_size=32, patch_size=8), projection_dim=16)
    model = CLIPModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<end>").save_pretrained(folder)
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def pictures(number: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (number, 40, 40, 3), dtype=np.uint8)


TEXTS = ["a red fox", "a blue cat", "cat"]


def test_every_picture_is_rated_against_its_own_text(folder: Path) -> None:
    scorer = ClipScorer(folder, CPU)
    scores = scorer(pictures(3), TEXTS)
    assert scores.shape == (3,) and scores.abs().max() <= 100
    alone = torch.cat([scorer(pictures(3)[i : i + 1], TEXTS[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-3)
    assert not torch.allclose(scores, scorer(pictures(3), TEXTS[::-1]), atol=1e-2)
    with pytest.raises(ValueError, match="got 3 pictures and 2 texts"):
        scorer(pictures(3), TEXTS[:2])


def test_a_picture_rescaled_twice_is_almost_black(folder: Path) -> None:
    """The score then hardly depends on the picture, as in the tables with values near 16."""
    same = ["a red fox"] * 8
    rightly, twice = ClipScorer(folder, CPU)(pictures(8), same), ClipScorer(folder, CPU, rescaled_twice=True)(pictures(8), same)
    assert twice.std() < rightly.std() / 20
    black = ClipScorer(folder, CPU)(np.zeros((1, 40, 40, 3), np.uint8), same[:1])
    torch.testing.assert_close(twice, black.expand(8), rtol=0, atol=rightly.std().item() / 2)


def test_folders_that_are_not_whole(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ValueError, match=r"no CLIP .*with --clip"):
        ClipScorer(tmp_path, CPU)
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="the tokenizer knows 1 words, the model 8"):
        ClipScorer(tmp_path, CPU)
