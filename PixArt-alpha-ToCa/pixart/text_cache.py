"""Embedded texts on disk, so that 30,000 captions go through T5 once, and T5 is gone before the first picture."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from pixart.t5 import T5Embedder
from toca.console import announce
from toca.loading.weights import shapes_of
from toca.runs.files import atomic_path

FEATURES = "features"


@dataclass(frozen=True)
class TextCache:
    """One file per text, under a hash of the text, of the encoder and of the length; only real tokens are kept.

    folder: where the files are.
    identity: of the encoder, see `encoder_identity`.
    length: L, tokens that a text is padded to.
    width: D, of the features.
    """

    folder: Path
    identity: str
    length: int
    width: int

    def path(self, text: str) -> Path:
        name = hashlib.blake2b(f"{self.identity}\n{self.length}\n{text}".encode(), digest_size=16).hexdigest()
        return self.folder / name[:2] / f"{name}.safetensors"

    def put(self, text: str, features: Tensor, mask: Tensor) -> None:
        """features (L, D), mask (L,), real tokens first. Raises ValueError if they are not finite."""
        features = features[: int(mask.sum())].contiguous().cpu()
        if not features.isfinite().all():
            raise ValueError(f"T5 gave features that are not finite for {text[:40]!r}: its weights are damaged, or its precision too low")
        with atomic_path(self.path(text)) as part:
            save_file({FEATURES: features}, part)

    def get(self, text: str) -> Tensor:
        """Features (tokens, D). Raises ValueError if the file is damaged."""
        self.check(text)
        features = load_file(self.path(text))[FEATURES]
        if not features.isfinite().all():
            raise ValueError(f"{self.path(text)} is damaged, remove it: it holds values that are not finite")
        return features

    def check(self, text: str) -> None:
        """Make sure that the file of a text is one of ours, without reading the features. Raises ValueError."""
        path = self.path(text)
        try:
            shapes = shapes_of(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is damaged, remove it: {error}") from error
        tokens, width = shapes.get(FEATURES, (0, 0)) if len(shapes.get(FEATURES, ())) == 2 else (0, 0)
        if shapes.keys() != {FEATURES} or not 1 <= tokens <= self.length or width != self.width:
            raise ValueError(f"{path} is no embedded text of ours, remove it: it holds {shapes}")

    def missing(self, texts: Iterable[str]) -> list[str]:
        """The different texts that have no file. Raises ValueError if the file of another is damaged."""
        unique = list(dict.fromkeys(texts))
        for text in unique:
            if self.path(text).exists():
                self.check(text)
        return [text for text in unique if not self.path(text).exists()]

    def batch(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) on the CPU, zero beyond the mask (B, L) of real tokens."""
        rows = [self.get(text) for text in texts]
        y, mask = rows[0].new_zeros(len(rows), self.length, rows[0].shape[1]), torch.zeros(len(rows), self.length, dtype=torch.int64)
        for i, features in enumerate(rows):
            y[i, : len(features)], mask[i, : len(features)] = features, 1
        return y, mask


def encode_missing(
    cache: TextCache, texts: Iterable[str], load: Callable[[], T5Embedder], batch: int = 8, rank: int = 0, world: int = 1
) -> int:
    """Encode this process's share of the texts that the cache lacks; returns how many. T5 is loaded if there are any, and freed again."""
    missing = [text for text in list(dict.fromkeys(texts))[rank::world] if not cache.path(text).exists()]
    if not missing:
        return 0
    encoder = load()
    if cut := [text for text in missing if encoder.tokens(text) > cache.length]:
        announce(f"T5 reads the first {cache.length} tokens of {len(cut)} texts, the first {cut[0][:40]!r}...")
    with tqdm(total=len(missing), unit="text", desc="encoding", disable=rank != 0) as progress:
        for first in range(0, len(missing), batch):
            part = missing[first : first + batch]
            for text, features, mask in zip(part, *encoder.get_text_embeddings(part)):
                cache.put(text, features, mask)
            progress.update(len(part))
    del encoder
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return len(missing)
