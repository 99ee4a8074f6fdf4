"""What Open-Sora costs: the specification's figures, published totals beside ours, flags."""

from __future__ import annotations

from typing import Any

import pytest

from opensora import flags
from opensora.spec import CONFIGS, STDiT3Config, opensora_spec
from toca.cli.report import memory_data, memory_text
from toca.cli.table import preset_data
from toca.methods import FORA, DuCa, Method, NoCaching, ToCa
from toca.planning.flops import step_flops, total_flops
from toca.planning.memory import attention_maps, predict
from toca.planning.plan import Kind
from toca.planning.run import PlannedRun
from toca.planning.spec import Site
from toca.presets import OPENSORA, parse_with_preset

XL = opensora_spec(CONFIGS["STDiT3-XL/2"], (15, 60, 106), 10)  # 480p 9:16, 51 frames, a short prompt
TENSOR = 2 * 23850 * 1152 * 2  # bytes of both halves' tokens in bfloat16
README = ToCa(interval=3, ratio=0.1)


def planned(*argv: str) -> PlannedRun:
    return flags.planned_run(parse_with_preset(flags.planning_parser(), OPENSORA, argv))


def full_steps(method: Method, site: Site, steps: int = 30, **options: Any) -> list[int]:
    plan = method.plan(opensora_spec(CONFIGS["STDiT3-XL/2"], (15, 60, 106), 10, **options), steps)
    return [step for step, row in enumerate(plan.steps) if row[site].kind is Kind.FULL]


def test_steps_by_matrix_products() -> None:
    rows = README.plan(XL, 30).steps
    assert [round(2 * step_flops(XL, rows[step]) / 1e12, 4) for step in (0, 3, 4)] == [109.4015, 94.9754, 8.4967]
    assert rows[4]["temporal_blocks", 27, "mlp"].tokens == 3565
    assert {rows[4][stack.name, 3, "cross_attn"].kind for stack in XL.stacks} == {Kind.REUSE}
    assert round(2 * step_flops(XL, rows[0], "upstream") / 1e12, 3) == 109.439
    assert round(2 * step_flops(XL, rows[4], "upstream") / 1e12, 3) == 8.511


@pytest.mark.parametrize(
    ("preset", "exact", "printed"),
    [("none", 3283.20, 3283.20), ("toca-r85", 1394.31, 1394.03), ("toca-r80", 1440.21, 1439.70), ("fora", 1751.46, 1751.32)],
)
def test_totals_beside_the_printed_ones(preset: str, exact: float, printed: float) -> None:
    """The published code's own counter gives the specification's totals; the printed ones differ by less than 0.04%."""
    run, row = planned("--preset", preset), OPENSORA[preset].published[0]
    assert preset_data(preset, OPENSORA[preset], run)["exact"]["rounded_tflops"] == exact
    assert row.numbers["tflops"] == printed == pytest.approx(exact, rel=4e-4)


def test_duca_costs_a_partial_and_a_free_step_for_every_full_one() -> None:
    plan = DuCa(interval=3, ratio=0.1, score="kv-norm").plan(XL, 30)
    kinds = [plan.step_kind(step) for step in range(30)]
    assert kinds[:12] == ["full"] * 3 + ["mixed", "partial", "skip", "full", "partial", "skip", "mixed", "partial", "skip"]
    total = sum(round(2 * step_flops(XL, row, "upstream") / 1e12, 2) for row in plan.steps)  # small steps, too, to 0.01 TFLOPs
    assert round(total, 2) == 1317.81
    fused = 2 * 56 * 2 * 1152 * 2 * 23850 * 20 / 1e12  # products of cross-attention that the published count does not see
    assert 1317.81 - 7 * round(fused, 2) == pytest.approx(1316.06, abs=0.01)


@pytest.mark.parametrize(
    ("resolution", "frames", "text", "uncached", "cached"),
    [("240p", "2s", 10, 780.6, 333.0), ("360p", "2s", 10, 1827.6, 777.9), ("480p", "2s", 100, 3350, 1411), ("720p", "4s", 10, 16554, 6987)],
)
def test_other_sizes(resolution: str, frames: str, text: int, uncached: float, cached: float) -> None:
    size = ("--resolution", resolution, "--num-frames", frames, "--text-tokens", str(text))
    for preset, expected in (("none", uncached), ("toca-r85", cached)):
        assert total_flops(planned(*size, "--preset", preset).plan) / 1e12 == pytest.approx(expected, rel=2e-4)


def test_cycles() -> None:
    mlp, cross = ("spatial_blocks", 0, "mlp"), ("temporal_blocks", 5, "cross_attn")
    assert full_steps(README, mlp) == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27]
    assert full_steps(README, cross) == [0, 1, 2, 6, 12, 18, 24]
    assert full_steps(FORA(2), cross, 10) == [0, 1, 2, 4, 6, 8]
    own = dict(steps=10, cycles=(2, 5, 4, 3))
    attn = [full_steps(README, (stack, 1, "attn"), **own) for stack in ("spatial_blocks", "temporal_blocks")]
    assert attn == [[0, 1, 2, 4, 6, 8], [0, 1, 2, 5]]
    assert full_steps(README, cross, **own) == [0, 1, 2, 4, 8] and full_steps(README, mlp, **own) == [0, 1, 2, 3, 6, 9]


def test_what_is_held_beside_what_the_published_code_holds() -> None:
    held = predict(README.plan(XL, 30), README, 2, 2)
    assert max(h.outputs for h in held) == 168 * TENSOR == 18_463_334_400
    assert max(h.total - h.outputs for h in held) < 2e-3 * 168 * TENSOR
    assert held[5].outputs == 0  # nothing is kept over a full step
    assert attention_maps(README.plan(XL, 30), README, 2, 2) == 56 * 2 * 23850 * 20 * 2
    assert attention_maps(NoCaching().plan(XL, 30), NoCaching(), 2, 2) == 0
    text = memory_text(memory_data(planned(), 1, "bf16"))
    assert "the published code keeps 17.29 GiB through the run: outputs, and 101.90 MiB of attention maps" in text


def test_settings_of_a_checkpoint() -> None:
    published = dict(hidden_size=1872, num_heads=26, patch_size=[1, 2, 2], input_size=[None] * 3, drop_path=0.0, skip_y_embedder=False)
    assert STDiT3Config.from_dict(published) == CONFIGS["STDiT3-3B/2"]
    for values, message in [
        (dict(hiden_size=8), "unknown STDiT3 settings hiden_size"),
        (dict(hidden_size=30, num_heads=4), "hidden size 30"),
        (dict(skip_y_embedder=True), "texts embedded elsewhere"),
    ]:
        with pytest.raises(ValueError, match=message):
            STDiT3Config.from_dict(values)
