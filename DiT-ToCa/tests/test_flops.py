"""FLOPs of DiT: the published totals to the last digit, the specification's table, and what torch counts on real runs."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from small import SMALL, sample, small_dit
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dit.spec import CONFIGS, DiTConfig, dit_spec
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import executed_flops, step_flops, total_flops, uncached_flops
from toca.planning.plan import Plan

DDPM = dict(ratio=0.07, ratio_schedule="ToCa-ddpm250", upstream_exact=True)
DDIM = dict(ratio=0.07, ratio_schedule="ToCa-ddim50", upstream_exact=True)


def plan_of(method: Method, steps: int, pixels: int = 256) -> Plan:
    return method.plan(dit_spec(CONFIGS["DiT-XL/2"].replace(input_size=pixels // 8)), steps)


@pytest.mark.parametrize(
    "method, steps, flops",
    [
        (NoCaching(), 250, 118_676_406_016_000),
        (NoCaching(), 50, 23_735_281_203_200),
        (ToCa(interval=4, **DDPM), 250, 43_420_574_210_048),
        (ToCa(interval=1, **DDPM), 250, 103_549_585_270_784),
        (ToCa(interval=3, **DDIM), 50, 10_232_809_588_736),
    ],
)
def test_published_totals(method: Method, steps: int, flops: int) -> None:
    assert total_flops(plan_of(method, steps), "upstream") == flops


TABLE = [  # steps, method, upstream counter, matmul (TFLOPs of one image with guidance)
    (50, NoCaching(), 23.735, 23.724),
    *((50, ToCa(interval=n, **DDIM), *both) for n, *both in ((2, 13.540, 13.545), (3, 10.233, 10.242), (4, 8.731, 8.743))),
    *((50, ToCa(interval=n, **DDIM), *both) for n, *both in ((5, 7.436, 7.450), (6, 7.017, 7.031))),
    *((50, FORA(interval=n), *both) for n, *both in ((3, 8.560, 8.572), (4, 6.663, 6.678), (5, 5.240, 5.257))),
    *((50, DuCa(interval=n, upstream_exact=True), *both) for n, *both in ((3, 9.575, 9.582), (4, 7.662, 7.669), (5, 6.320, 6.329))),
    *((50, TaylorSeer(interval=n), total, None) for n, total in ((3, 8.559), (4, 6.662), (5, 5.239), (6, 4.765))),
    (250, NoCaching(), 118.676, 118.621),
    *((250, ToCa(interval=n, **DDPM), *both) for n, *both in ((1, 103.550, 103.518), (2, 65.640, 65.665), (3, 51.794, 51.840))),
    *((250, ToCa(interval=n, **DDPM), *both) for n, *both in ((4, 43.421, 43.479), (5, 39.254, 39.319), (6, 36.302, 36.371))),
]


@pytest.mark.parametrize("steps, method, upstream, matmul", TABLE, ids=lambda value: repr(value)[:40])
def test_the_specifications_table(steps: int, method: Method, upstream: float, matmul: float | None) -> None:
    plan = plan_of(method, steps)
    assert round(total_flops(plan, "upstream") / 1e12, 3) == upstream
    assert matmul is None or round(total_flops(plan, "matmul") / 1e12, 3) == matmul


@pytest.mark.parametrize(
    "method, steps, tflops",
    [(NoCaching(), 50, 105.20), (ToCa(interval=3, **DDIM), 50, 44.64), (NoCaching(), 250, 525.99), (ToCa(interval=4, **DDPM), 250, 188.55)],
)
def test_at_512_pixels(method: Method, steps: int, tflops: float) -> None:
    assert round(total_flops(plan_of(method, steps, 512), "upstream") / 1e12, 2) == tflops


@pytest.mark.parametrize(
    "name, gmacs",
    [
        *(("XL/2", 118.62), ("L/2", 80.70), ("B/2", 23.01), ("S/2", 6.06), ("XL/4", 29.04), ("L/4", 19.70)),
        *(("B/4", 5.57), ("S/4", 1.41), ("XL/8", 7.39), ("L/8", 5.01), ("B/8", 1.42), ("S/8", 0.36)),
    ],
)
def test_multiply_adds_of_a_forward_pass(name: str, gmacs: float) -> None:
    plan = NoCaching().plan(dit_spec(CONFIGS[f"DiT-{name}"]), 1)
    assert round(step_flops(plan.spec, plan.steps[0]) / 2e9, 2) == gmacs


def counted(config: DiTConfig, method: Method | None, images: int, steps: int) -> int:
    z, labels = torch.randn(images, config.in_channels, *SMALL.input_size), torch.zeros(images, dtype=torch.long)
    model = small_dit(config)
    # the counter is blind to the fused kernel of CPUs
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        sample(model, method, z, labels, steps)
    return counter.get_total_flops()


RUNS = [FORA(), TaylorSeer(), DuCa(ratio=0.15), DuCa(interval=4, ratio=0.15, upstream_exact=True), ToCa(ratio=0.15, force_fresh="local")]
RUNS += [ToCa(ratio=0.15, upstream_exact=True), ToCa(ratio=0.15, score="similarity"), ToCa(ratio=0.15, score="norm")]


@pytest.mark.parametrize("method", RUNS, ids=lambda method: repr(method)[:60])
@pytest.mark.parametrize("overrides", [{}, dict(patch_size=1, in_channels=3, mlp_ratio=2.0)], ids=["small", "odd"])
def test_planned_flops_are_those_of_a_run(method: Method, overrides: dict) -> None:
    config = SMALL.replace(**overrides)
    plan = method.plan(dit_spec(config), 12)
    assert counted(config, method, 2, 12) == executed_flops(plan, rows=4) < total_flops(plan, rows=4)
    assert counted(config, None, 2, 12) == uncached_flops(plan, rows=4)


def test_planning_a_dit_needs_no_torch() -> None:
    code = "import sys, dit.flags, dit.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
