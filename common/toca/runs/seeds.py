"""One seed per item, so that no split of a run over batches and processes changes a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch


def item_seed(seed: int, index: int) -> int:
    """A seed in 0..2^63-1 for item `index` of a run: a hash of both, so that neighbouring runs and items share nothing."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{index}".encode(), digest_size=8).digest(), "little") >> 1


def item_generators(seed: int, indices: Sequence[int]) -> list[torch.Generator]:
    """One CPU generator per item; the numbers they draw do not depend on the device, the batch or the number of processes."""
    return [torch.Generator().manual_seed(item_seed(seed, index)) for index in indices]
