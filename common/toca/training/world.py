"""Captioned pictures of `toca.shapeworld` to train on, their words, and a tiny T5 that reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from toca import shapeworld
from toca.shapeworld.captions import COUNTS, PLACES, RELATIONS

SIZE, CHANNELS = 32, 3  # pixels of a side; colours
TEXT_TOKENS = 16  # the longest caption has eight words
T5_WIDTH = 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"
Tokenize = Callable[[Sequence[str]], Tensor]  # captions -> (B, ...) int64


def words() -> list[str]:
    """All words of captions, sorted."""
    plurals = [f"{shape}{'es' if shape.endswith('s') else 's'}" for shape in shapeworld.SHAPES]
    phrases = ["a", *shapeworld.SHAPES, *plurals, *shapeworld.COLOURS, *COUNTS.values(), *RELATIONS, *PLACES.values()]
    return sorted({word for phrase in phrases for word in phrase.split()})


def t5_tokenizer() -> Any:
    """transformers' T5Tokenizer: one token per word of a caption, `</s>` at the end. Other words are spelt."""
    from transformers import T5Tokenizer

    special, known = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -20.0)], [("\u2581" + word, -2.0) for word in words()]
    return T5Tokenizer(vocab=[*special, *known, *((letter, -20.0) for letter in LETTERS)], extra_ids=0)


def t5_encoder(tokenizer: Any) -> Any:
    """transformers' T5EncoderModel of two layers and width T5_WIDTH, untrained."""
    from transformers import T5Config, T5EncoderModel

    sizes = dict(d_model=T5_WIDTH, d_kv=16, d_ff=2 * T5_WIDTH, num_layers=2, num_heads=4)
    near = dict(relative_attention_num_buckets=16, relative_attention_max_distance=16)
    return T5EncoderModel(T5Config(vocab_size=len(tokenizer), dropout_rate=0.0, feed_forward_proj="gated-gelu", **sizes, **near))


def padded(tokenizer: Any, captions: Sequence[str], length: int = TEXT_TOKENS) -> Tensor:
    """Tokens (B, length) of captions."""
    return tokenizer(list(captions), truncation=True, max_length=length, padding="max_length", return_tensors="pt")["input_ids"]


class Pool:
    """`size` captioned pictures, each drawn when it is first asked for, from its number alone; later epochs see them again.

    tokenize: what becomes of a caption.
    empty: tokens (1, ...) of the empty caption.
    kinds: of scenes, see `shapeworld.KINDS`.
    """

    def __init__(self, tokenize: Tokenize, size: int, kinds: Sequence[str], seed: int) -> None:
        self.tokenize, self.size, self.kinds, self.seed = tokenize, size, tuple(kinds), seed
        self.pictures = np.zeros((size, SIZE, SIZE, 3), np.uint8)
        self.empty = tokenize([""])
        self.tokens = self.empty.new_zeros(size, *self.empty.shape[1:])
        self.drawn = np.zeros(size, bool)

    def fill(self, workers: int) -> None:
        """Draw everything now, in several processes."""
        chunks = np.array_split(np.arange(self.size), -(-self.size // 500))
        with ProcessPoolExecutor(workers) as processes:
            for chunk, drawn in zip(chunks, processes.map(partial(_draw, self.seed, self.kinds), chunks), strict=True):
                self._put(chunk, *drawn)

    def batch(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, SIZE, SIZE) in [-1, 1] and their tokens (B, ...), by numbers (B,) modulo the pool's size."""
        indices = indices % self.size
        if len(missing := np.unique(indices[~self.drawn[indices]])):
            self._put(missing, *_draw(self.seed, self.kinds, missing))
        return torch.from_numpy(self.pictures[indices]).movedim(-1, 1).float() / 127.5 - 1, self.tokens[torch.from_numpy(indices)]

    def _put(self, indices: np.ndarray, pictures: np.ndarray, captions: list[str]) -> None:
        self.pictures[indices], self.drawn[indices] = pictures, True
        self.tokens[torch.from_numpy(indices)] = self.tokenize(captions)


def _draw(seed: int, kinds: tuple[str, ...], indices: np.ndarray) -> tuple[np.ndarray, list[str]]:
    return shapeworld.captioned(seed, indices, SIZE, kinds)
