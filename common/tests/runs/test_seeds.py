from __future__ import annotations

import torch

from toca.runs.seeds import item_generators, item_seed


def test_item_seeds_never_change():
    assert item_seed(0, 0) == 3560153452049741418
    assert item_seed(1, 0) == 4432326512554026153
    assert len({item_seed(seed, index) for seed in range(20) for index in range(100)}) == 2000


def test_an_item_draws_the_same_in_any_batch():
    together = [torch.rand(2, generator=g) for g in item_generators(3, [5, 6, 7])]
    (alone,) = (torch.rand(2, generator=g) for g in item_generators(3, [6]))
    assert torch.equal(together[1], alone)
    assert not torch.equal(together[0], together[1])
