"""What must hold of every method and score, whatever the settings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import SMALL, sample, small_dit
from torch import Tensor

from dit.spec import dit_spec
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.methods.toca import FORCE_FRESH
from toca.planning.scores import SCORES

MODEL = small_dit()
METHODS = [FORA(), TaylorSeer(interval=3, order=2), *(cls(ratio=0.15, score=score) for cls in (ToCa, DuCa) for score in SCORES)]
IDS = [f"{method.name}-{method.score}" if isinstance(method, ToCa) else method.name for method in METHODS]
every_method = pytest.mark.parametrize("method", METHODS, ids=IDS)
few = settings(max_examples=12, deadline=None, derandomize=True)

RATIOS = st.floats(0.05, 0.6)
TOCA = st.builds(
    ToCa,
    interval=st.integers(2, 6),
    ratio=RATIOS,
    ratio_schedule=st.sampled_from(["ToCa", "constant", "linear", "layerwise", "exp", "cosine", "linear-mode", "ToCa-ddpm250"]),
    score=st.sampled_from(sorted(SCORES)),
    soft_fresh_weight=st.floats(0, 1),
    force_fresh=st.sampled_from(FORCE_FRESH),
    bucket=st.integers(1, 4),
    upstream_exact=st.booleans(),
)
DUCA = st.builds(DuCa, interval=st.integers(2, 6), ratio=RATIOS, score=st.sampled_from(sorted(SCORES)))
TAYLORSEER = st.builds(TaylorSeer, interval=st.integers(2, 6), order=st.integers(0, 4))
ANY_METHOD = st.one_of(TOCA, DUCA, TAYLORSEER, st.builds(FORA, interval=st.integers(2, 6)))


def inputs(images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, SMALL.in_channels, *SMALL.input_size, generator=generator), torch.arange(images) % SMALL.num_classes


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5 * expected.abs().max().item(), rtol=0)


UNCACHED = sample(MODEL, None, *inputs(2))


@every_method
def test_every_method_changes_the_result_a_little(method: Method) -> None:
    """By much more than the tolerance above: otherwise what follows shows nothing."""
    difference = (sample(MODEL, method, *inputs(2)) - UNCACHED).abs().max()
    assert 2e-4 < difference / UNCACHED.abs().max() < 1


@pytest.mark.parametrize("method", [NoCaching(), FORA(interval=1), TaylorSeer(interval=1)], ids=lambda method: method.name)
def test_methods_that_cache_nothing_equal_no_cache(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, *inputs(2)), UNCACHED)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("settings", [dict(ratio=1.0), dict(interval=1)], ids=["ratio 1", "interval 1"])
@pytest.mark.parametrize("cls", [ToCa, DuCa])
def test_a_ratio_or_an_interval_of_one_equals_no_cache(cls: type[ToCa], settings: dict, score: str) -> None:
    assert torch.equal(sample(MODEL, cls(score=score, **settings), *inputs(2)), UNCACHED)


def test_upstream_caches_at_an_interval_of_one() -> None:
    assert ToCa(interval=1, upstream_exact=True).plan(dit_spec(SMALL), 50).caches


@every_method
def test_a_second_run_equals_the_first(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, *inputs(2)), sample(MODEL, method, *inputs(2)))


@every_method
def test_a_batch_equals_its_images(method: Method) -> None:
    z, labels = inputs(3)
    together = sample(MODEL, method, z, labels, seeds=(7, 8, 9))
    for i in range(3):
        close(together[i : i + 1], sample(MODEL, method, z[i : i + 1], labels[i : i + 1], seeds=(7 + i,)))


@every_method
def test_permuting_the_batch_permutes_the_result(method: Method) -> None:
    z, labels = inputs(4)
    order, seeds = torch.tensor([2, 0, 3, 1]), torch.arange(10, 14)
    moved = sample(MODEL, method, z[order], labels[order], seeds=seeds[order].tolist())
    close(moved, sample(MODEL, method, z, labels, seeds=seeds.tolist())[order])


@every_method
def test_precomputed_modulations_change_nothing(method: Method) -> None:
    close(sample(MODEL, method, *inputs(2), precompute=True), sample(MODEL, method, *inputs(2)))


@few
@given(ANY_METHOD, st.integers(1, 9), st.permutations(range(3)), st.integers(0, 99))
def test_any_setting_is_repeatable_and_blind_to_the_batch(method: Method, steps: int, order: list[int], seed: int) -> None:
    z, labels = inputs(3, seed)
    run = sample(MODEL, method, z, labels, steps, seeds=(1, 2, 3))
    assert run.isfinite().all() and torch.equal(run, sample(MODEL, method, z, labels, steps, seeds=(1, 2, 3)))
    moved = sample(MODEL, method, z[order], labels[order], steps, seeds=[1 + i for i in order])
    close(moved, run[order])
    first = order[0]
    close(sample(MODEL, method, z[first : first + 1], labels[first : first + 1], steps, seeds=(1 + first,)), moved[:1])


@few
@given(ANY_METHOD)
def test_a_run_of_one_step_is_uncached(method: Method) -> None:
    assert torch.equal(sample(MODEL, method, *inputs(1), steps=1), sample(MODEL, None, *inputs(1), steps=1))
