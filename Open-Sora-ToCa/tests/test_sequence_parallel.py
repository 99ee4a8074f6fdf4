"""One video on two processes gives what one gives: outputs, scores and choices, with an odd and an even number of tokens a frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from small import SMALL, TEXT, inputs, sample, small_stdit3
from torch import Tensor

from opensora.acceleration.parallel_states import sequence_parallel_group, shard_tokens
from opensora.spec import opensora_spec
from toca.engine.cache import Cache
from toca.engine.token_shards import WHOLE, SequenceShards, Whole
from toca.methods import DuCa, Method, TaylorSeer, ToCa

LATENT, EVEN, STEPS, WORLD = (3, 5, 6), (3, 4, 6), 7, 2  # 9 and 6 tokens a frame
GIVEN = torch.tensor([[False, True, True], [True, False, True]])
SCORES = ("attention", "kv-norm", "similarity", "norm", "random")
METHODS: dict[str, Method | None] = {
    "uncached": None,
    "toca": ToCa(interval=3, ratio=0.1),
    **{f"toca-{score}": ToCa(interval=3, ratio=0.3, ratio_schedule="constant", score=score) for score in SCORES},
    "toca-even": ToCa(interval=3, ratio=0.97, ratio_schedule="constant"),  # all but one token: each process computes as many as it has
    "duca": DuCa(interval=3, ratio=0.1, score="kv-norm"),
    "taylorseer": TaylorSeer(interval=3, order=1),
}


def runs(shards: Callable[[tuple[int, int, int]], Whole]) -> dict[str, tuple[Tensor, list[Tensor]]]:
    """By method: the result, and all tokens chosen; with frames that are given in every second run. shards: of a latent."""
    model, results = small_stdit3(), {}
    for number, (name, method) in enumerate(METHODS.items()):
        chosen: list[Tensor] = []
        latent = EVEN if name == "toca-even" else LATENT
        data = inputs(2) | dict(z=torch.randn(2, 4, *latent, generator=torch.Generator().manual_seed(1)))

        def look(cache: Cache, chosen: list[Tensor] = chosen) -> None:
            for stack in ("spatial_blocks", "temporal_blocks"):
                for branch in ("cross_attn", "mlp"):
                    if selector := cache.selector(stack, branch):
                        chosen += [rows.clone() for rows in selector.chosen if rows is not None]

        spec, x_mask = opensora_spec(SMALL, latent, TEXT), GIVEN if number % 2 else None
        options: dict[str, Any] = dict(spec=spec, shards=shards(latent), x_mask=x_mask)
        results[name] = sample(model, method, data, STEPS, after_step=look if method else lambda cache: None, **options), chosen
    return results


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD)
    group = sequence_parallel_group("cpu")
    shards = shard_tokens(SMALL, LATENT, group)
    assert isinstance(shards, SequenceShards) and shards.local(27) == 3 * 5
    torch.save(runs(lambda latent: shard_tokens(SMALL, latent, group)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, tuple[Tensor, list[Tensor]]]]:
    folder = tmp_path_factory.mktemp("parallel")
    mp.spawn(process, args=(str(folder),), nprocs=WORLD)
    return [torch.load(Path(folder) / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def alone() -> dict[str, tuple[Tensor, list[Tensor]]]:
    return runs(lambda latent: WHOLE)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_are_as_one(name: str, parallel: list, alone: dict) -> None:
    expected, chosen = alone[name]
    for rank in range(WORLD):
        found, chosen_there = parallel[rank][name]
        assert len(chosen) == len(chosen_there) and all(torch.equal(a, b) for a, b in zip(chosen, chosen_there))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert bool(chosen) == name.startswith(("toca", "duca"))


def test_heads_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dist, "get_world_size", lambda group: 3)
    monkeypatch.setattr(dist, "get_rank", lambda group: 0)
    with pytest.raises(ValueError, match="2 heads do not divide among 3 processes"):
        shard_tokens(SMALL, LATENT, object())


def test_without_a_group_all_is_here() -> None:
    assert shard_tokens(SMALL, LATENT, None) is WHOLE
