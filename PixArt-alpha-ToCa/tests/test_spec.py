"""What PixArt costs and when it computes what: the specification's tables to the last digit."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pixart.spec import CONFIGS, pixart_spec
from toca.methods import FORA, DuCa, Method, NoCaching, ToCa
from toca.planning.flops import step_flops, total_flops, uncached_flops
from toca.planning.plan import Kind
from toca.planning.spec import ModelSpec


def spec(pixels: int = 256, text_tokens: int = 24) -> ModelSpec:
    return pixart_spec(CONFIGS[pixels], text_tokens=text_tokens)


def toca(ratio: float = 0.3, **fields) -> ToCa:
    return ToCa(interval=3, ratio=ratio, **fields)


def tflops(method: Method, model: ModelSpec, counter: str = "upstream", steps: int = 20) -> float:
    return round(total_flops(method.plan(model, steps), counter) / 1e12, 3)


# ---- FLOPs ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "flops"),
    [
        (NoCaching(), 11_180_338_053_120),
        (toca(0.4, upstream_exact=True), 6_334_251_098_112),
        (toca(0.3, upstream_exact=True), 5_785_089_933_312),
        (toca(0.2, upstream_exact=True), 5_053_388_931_072),
        (toca(0.1, upstream_exact=True), 4_263_010_689_024),
        (toca(0.4), 6_594_493_538_304),
        (toca(0.3), 6_089_328_304_128),
        (toca(0.2), 5_430_650_093_568),
        (toca(0.1), 4_717_722_083_328),
        (FORA(2), 5_668_267_622_400),
        (FORA(3), 4_014_646_493_184),
    ],
    ids=repr,
)
def test_published_totals_to_the_last_digit(method: Method, flops: int) -> None:
    """The mixed steps of the published code, and the same decided once per step."""
    assert total_flops(method.plan(spec(), 20), "upstream") == flops


@pytest.mark.parametrize(("ratio", "mixed"), [(0.4, 6.188), (0.3, 5.639), (0.2, 4.907), (0.1, 4.116)])
def test_with_the_text_computed_once(ratio: float, mixed: float) -> None:
    assert tflops(toca(ratio, upstream_exact=True), spec(), "matmul") == mixed


@pytest.mark.parametrize(("interval", "total"), [(3, 5.853), (4, 5.598), (5, 4.547)])
def test_duca(interval: int, total: float) -> None:
    for exact in (False, True):
        assert tflops(DuCa(interval, 0.75, upstream_exact=exact), spec()) == total


def test_other_resolutions_and_numbers_of_steps() -> None:
    assert tflops(NoCaching(), spec(), steps=10) == 5.590
    found = [tflops(method, spec(pixels)) for pixels in (512, 1024) for method in (NoCaching(), toca(upstream_exact=True))]
    assert [round(total, 2) for total in found] == [48.31, 23.93, 257.73, 114.88]
    assert uncached_flops(toca().plan(spec(), 20)) == uncached_flops(toca().plan(spec(), 20), "upstream")


@pytest.mark.parametrize(("pixels", "text_tokens", "gmacs"), [(256, 120, 149.1), (512, 120, 618.0), (1024, 120, 3254.8), (256, 24, 139.8)])
def test_multiply_adds_of_a_forward_pass(pixels: int, text_tokens: int, gmacs: float) -> None:
    model = spec(pixels, text_tokens)
    assert round(step_flops(model, NoCaching().plan(model, 1).steps[0], "upstream") / 2e9, 1) == gmacs


def test_gigaflops_of_the_readmes_steps() -> None:
    model = spec()
    steps = [round(2 * step_flops(model, row, "upstream") / 1e9, 1) for row in toca(upstream_exact=True).plan(model, 20).steps]
    assert [step for step, flops in enumerate(steps) if flops == 559.0] == [0, 6, 9, 12, 15, 18]
    assert (steps[1], steps[4], steps[19]) == (273.5, 254.8, 37.5)


# ---- plans ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "first", "others", "once"),
    [
        (1, [*range(20)], [*range(20)], [*range(20)]),
        (2, [*range(0, 20, 2)], [*range(0, 20, 2)], [*range(0, 20, 2)]),
        (3, [0, 4, 6, 9, 12, 15, 18], [0, 6, 9, 12, 15, 18], [0, 4, 6, 9, 12, 15, 18]),
        (4, [0, 5, 8, 12, 16], [0, 8, 12, 16], [0, 5, 8, 12, 16]),
        (5, [0, 6, 10, 15], [0, 10, 15], [0, 6, 10, 15]),
        (6, [0, 8, 12, 18], [0, 12], [0, 8, 12, 18]),
        (8, [0, 10, 16], [0], [0, 10, 16]),
    ],
)
def test_full_steps(interval: int, first: list[int], others: list[int], once: list[int]) -> None:
    def full(method: Method, layer: int) -> list[int]:
        return [step for step, row in enumerate(method.plan(spec(), 20).steps) if row["blocks", layer, "attn"].kind is Kind.FULL]

    method = ToCa(interval, 0.3)
    exact = replace(method, upstream_exact=True)
    assert full(exact, 0) == first and full(exact, 1) == full(exact, 27) == others
    assert full(method, 0) == full(method, 27) == once


def test_fora_keeps_its_interval() -> None:
    for method in (FORA(3), toca(0.0), toca(0.0, upstream_exact=True)):
        assert [step for step in range(20) if method.plan(spec(), 20).step_kind(step) == "full"] == [*range(0, 20, 3)]


@pytest.mark.parametrize(("interval", "kinds"), [(3, "FTAFTAF"), (4, "FTATFTA"), (5, "FTATAFT")])
def test_duca_alternates(interval: int, kinds: str) -> None:
    plan = DuCa(interval, 0.75).plan(spec(), 7)
    assert [plan.step_kind(step) for step in range(7)] == [dict(F="full", T="partial", A="skip")[kind] for kind in kinds]


def test_refreshed_tokens() -> None:
    """The README's at 256 tokens: first, second and last layer of three steps."""
    steps = toca(upstream_exact=True).plan(spec(), 20).steps
    for name, expected in (("cross_attn", [[133, 129, 33], [126, 123, 31]]), ("mlp", [[256, 256, 88], [256, 256, 84]])):
        assert [[steps[step]["blocks", layer, name].tokens for layer in (0, 1, 27)] for step in (1, 2)] == expected


def test_local_refreshing_is_as_published_only_where_that_is_asked_for() -> None:
    for make in (ToCa, DuCa):
        plan = make(3, 0.3, force_fresh="local", upstream_exact=True).plan(spec(), 8)
        assert [step for step in range(8) if plan.step_kind(step) == "full"] == ([0] if make is ToCa else [0, 3, 6])
    ours = toca(force_fresh="local")
    assert ours.ranking(spec()).overdue == 3 and toca(force_fresh="local", upstream_exact=True).ranking(spec()).overdue == 0


def test_attention_rates_tokens_by_the_text() -> None:
    assert toca().ranking(spec()).score == "entropy" and toca(score="compress").ranking(spec()).score == "compress"
