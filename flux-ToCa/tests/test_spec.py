"""What FLUX costs: printed totals to the last digit, the specification's table, and predicted memory."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from flux import flags
from flux.spec import CONFIGS, flux_spec, txt_tokens
from toca.cli.table import preset_data
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.planning.flops import rounded_tflops, step_flops, total_flops
from toca.planning.memory import predict
from toca.presets import FLUX_DEV

DEV = flux_spec(CONFIGS["flux-dev"], 4096, 512)  # 1024 x 1024
UNIT = 4608 * 3072 * 2  # bytes of all tokens in bfloat16


def toca(interval: int) -> ToCa:
    return ToCa(interval=interval, ratio=0.1)


@pytest.mark.parametrize(
    ("method", "steps", "printed"),
    [
        (NoCaching(), 50, 3719.50),
        (NoCaching(), 30, 2231.70),
        (FORA(3), 50, 1320.07),
        (toca(4), 50, 1263.22),
        (toca(5), 50, 1126.76),
        (toca(6), 50, 990.30),
    ],
    ids=repr,
)
def test_printed_totals(method: Method, steps: int, printed: float) -> None:
    assert rounded_tflops(method.plan(DEV, steps)) == printed


@pytest.mark.parametrize(
    ("interval", "toca_exact", "toca_ours", "taylorseer", "fora_exact", "fora_ours"),
    [
        (2, 2082.15, 2031.85, 1934.74, 1901.69, 1860.37),
        (3, 1536.33, 1469.26, 1339.79, 1319.95, 1265.42),
        (4, 1263.41, 1187.96, 1042.31, 1029.08, 967.94),
        (5, 1126.96, 1047.31, 893.57, 810.93, 744.83),
        (6, 990.50, 906.67, 744.83, 738.21, 670.46),
        (7, 922.28, 836.34, 670.46, 665.50, 596.09),
        (8, 854.05, 766.02, 596.09, 592.78, 521.72),
        (10, 785.82, 695.70, 521.72, 447.35, 372.98),
    ],
)
def test_the_specifications_table(
    interval: int, toca_exact: float, toca_ours: float, taylorseer: float, fora_exact: float, fora_ours: float
) -> None:
    plans = toca(interval).plan(DEV, 50), FORA(interval).plan(DEV, 50)
    assert [round(total_flops(plan, "upstream", 1) / 1e12, 2) for plan in plans] == [toca_exact, fora_exact]
    assert round(total_flops(TaylorSeer(interval, 1).plan(DEV, 50), "upstream", 1) / 1e12, 2) == taylorseer
    for plan, ours in zip(plans, (toca_ours, fora_ours), strict=True):  # the table counts norms too, and embeds the text at full steps
        assert total_flops(plan, rows=1) / 1e12 == pytest.approx(ours, rel=2e-3)


def test_steps_of_a_run() -> None:
    plan = toca(4).plan(DEV, 50)
    assert [round(step_flops(DEV, plan.steps[step], "upstream") / 1e12, 4) for step in (2, 3)] == [74.3922, 6.1645]
    assert round(step_flops(DEV, plan.steps[3]) / 1e12, 2) == 4.07
    assert round(step_flops(DEV, FORA(3).plan(DEV, 50).steps[1], "upstream") / 1e12, 5) == 1.67520
    schnell = flux_spec(CONFIGS["flux-schnell"], 4096, txt_tokens("flux-schnell"))
    assert round(total_flops(toca(4).plan(schnell, 4), "upstream", 1) / 1e12, 2) == 214.24
    wide = flux_spec(CONFIGS["flux-dev"], 85 * 48, 512)
    assert round(step_flops(wide, NoCaching().plan(wide, 1).steps[0], "upstream") / 1e12, 4) == 74.0825


def test_cycles() -> None:
    kinds = [toca(4).plan(DEV, 50).step_kind(step) for step in range(50)]
    assert [step for step, kind in enumerate(kinds) if kind == "full"] == [0, 1, *range(2, 50, 4)]
    kinds = [DuCa(interval=4, ratio=0.1).plan(DEV, 12).step_kind(step) for step in range(12)]
    assert kinds[2:7] == ["full", "skip", "partial", "skip", "full"]


def test_refreshed_rows() -> None:
    exact = ToCa(interval=4, ratio=0.1, upstream_exact=True).plan(DEV, 50).steps[3]
    assert [exact["double_blocks", layer, "img_mlp"].tokens for layer in (0, 18)] == [245, 136]
    assert [exact["double_blocks", layer, "txt_mlp"].tokens for layer in (0, 18)] == [30, 17]
    assert [exact["single_blocks", layer, "total"].tokens for layer in (0, 37)] == [1105, 95]
    assert exact == toca(4).plan(DEV, 50).steps[3]  # the default refreshes as many
    deep = ToCa(interval=4, ratio=0.1, ratio_schedule="ToCa-depth").plan(DEV, 50).steps[3]
    assert deep["single_blocks", 37, "total"].tokens == int(0.1 * 1.6 * 0.5 * 4608)


@pytest.mark.parametrize(("method", "units"), [(FORA(3), 76), (TaylorSeer(6, 1), 152), (TaylorSeer(6, 2), 228), (NoCaching(), 0)], ids=repr)
def test_stored_outputs(method: Method, units: int) -> None:
    held = predict(method.plan(DEV, 50), method, 1, 2)
    assert max(h.outputs for h in held) == units * UNIT


@pytest.mark.parametrize(("interval", "gigabytes"), [(4, 2.57), (5, 2.71), (6, 2.83)])
def test_of_attention_in_single_blocks_only_the_rows_of_a_cycle_are_kept(interval: int, gigabytes: float) -> None:
    """All of it where a cycle reads as many rows as there are."""
    method = toca(interval)
    plan = method.plan(DEV, 50)
    outputs = [h.outputs for h in predict(plan, method, 1, 2)]
    counts = [plan.steps[3]["single_blocks", layer, "total"].tokens for layer in range(38)]
    kept = sum(min((interval - 1) * count, 4608) for count in counts)
    assert max(outputs) == outputs[2] == 76 * UNIT + kept * 3072 * 2
    assert round(outputs[2] / 1e9, 2) == gigabytes
    read = sum(count if (interval - 1) * count < 4608 else 0 for count in counts)
    assert outputs[2] - outputs[3] == read * 3072 * 2  # rows go when they have been read


def test_a_cached_run_holds_little_beside_outputs() -> None:
    method = toca(4)
    held = predict(method.plan(DEV, 50), method, 1, 2, modulation_budget=0)
    assert max(h.ranking for h in held) < 4e6 and max(h.once for h in held) < 6e6
    assert max(h.total for h in held) <= 2.59e9


def test_the_published_rows_of_plain_steps_toca_and_fora() -> None:
    dev = flags.NamedModel("flux-dev")
    for name in ("none", "steps30", "steps25", "steps20", "fora3", "toca4-01", "toca5-01", "toca6-01"):
        run = dev.planned_run(flags.parse(dev.planning_parser(), ["--preset", name], "flux-dev"))
        assert preset_data(name, FLUX_DEV[name], run)["exact"]["rounded_tflops"] == FLUX_DEV[name].published[0].numbers["tflops"]


PROJECTED = [(name, row.numbers["tflops"]) for name, preset in FLUX_DEV.items() for row in preset.published if row.counter == "projected"]


@pytest.mark.parametrize(("name", "printed"), PROJECTED)
def test_later_papers_cache_attention_after_its_projection(name: str, printed: float) -> None:
    """To the digit, but for the printed total of duca9, whose skipped steps are rounded further."""
    dev = flags.NamedModel("flux-dev")
    run = dev.planned_run(flags.parse(dev.planning_parser(), ["--preset", name], "flux-dev"))
    rows = preset_data(name, FLUX_DEV[name], run)["published"]
    (counted,) = {row["exact"]["rounded_tflops"] for row in rows if row["counter"] == "projected"}
    assert counted == pytest.approx(printed, abs=0.011 if name == "duca9" else 1e-9)


def test_skipped_and_partial_steps_of_later_papers() -> None:
    plan = DuCa(interval=5, ratio=0.1).plan(DEV, 50)
    steps = [step_flops(DEV, plan.steps[step], "projected") / 1e12 for step in (2, 3, 4)]
    assert [round(steps[0], 3), round(steps[1], 5), round(steps[2], 2)] == [74.392, 0.02056, 4.51]


@pytest.mark.parametrize("name", CONFIGS)
def test_every_model_is_known_to_the_command(name: str, capsys: pytest.CaptureFixture) -> None:
    fork = getattr(flags, name.replace("-", "_"))
    run = fork.planned_run(fork.planning_parser().parse_args([]))
    assert (run.method == NoCaching()) == (name == "flux-schnell")
    assert run.spec.stack("double_blocks").branch("txt_mlp").tokens == txt_tokens(name)
    with pytest.raises(SystemExit, match="2"):
        fork.planning_parser().parse_args(["--width", "15"])
    assert "--width: must be a whole number of 16 to 16384, got '15'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "method"),
    [
        ([], ToCa(interval=4, ratio=0.1)),
        (["--name", "flux-schnell"], NoCaching()),
        (["--name", "flux-schnell", "--preset", "toca5-01"], ToCa(interval=5, ratio=0.1)),
        (["--method", "duca", "--fresh_threshold", "5"], DuCa(interval=5, ratio=0.1)),
        (["--preset", "duca7", "--cache_type", "age"], DuCa(interval=7, ratio=0.1, score="age")),
        (["--preset", "taylorseer-n6-o1", "--max_order", "2"], TaylorSeer(6, 2)),
        (["--method", "fora"], FORA(4)),
    ],
)
def test_flags(argv: list[str], method: Method) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", default="flux-dev")
    flags.add_method_flags(parser)
    assert flags.method_from(flags.parse(parser, argv)) == method


def test_planning_a_flux_needs_no_torch() -> None:
    code = "import sys, flux.flags, flux.spec; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
