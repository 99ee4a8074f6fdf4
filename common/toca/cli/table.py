"""`toca table`: published settings, the numbers printed for them, and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from toca.cli.report import Data, columns
from toca.planning.flops import rounded_tflops, total_flops, uncached_flops
from toca.planning.plan import Plan
from toca.planning.run import PlannedRun
from toca.presets import Preset

QUALITY = {
    "fid50k": "FID-50k",
    "sfid": "sFID",
    "inception_score": "IS",
    "precision": "prec.",
    "image_reward": "ImageReward",
    "geneval": "GenEval",
    "fid30k": "FID-30k",
    "clip": "CLIP",
    "vbench": "VBench %",
    "latency_speedup": "x time",
}


def preset_data(name: str, preset: Preset, run: PlannedRun) -> Data:
    """exact: the published code's counter on its own steps, with `rounded_tflops` where the printed totals are sums of rounded steps;
    of every published row the same by the row's counter. ours: all matrix products on our default steps. FLOPs of one image."""
    plan = run.plan
    if any(setting.name == "upstream_exact" for setting in fields(run.method)):
        plan = replace(run.method, upstream_exact=True).plan(run.spec, run.num_steps)
    rows = run.rows_per_image

    def exact(counter: str) -> Data:
        rounded = dict(rounded_tflops=rounded_tflops(plan, counter, rows)) if run.spec.published.printed_units else {}
        return _counted(plan, counter, rows) | rounded

    return dict(
        preset=name,
        flags=dict(preset.flags),
        published=[asdict(row) | dict(exact=exact(row.counter)) for row in preset.published],
        exact=exact("upstream" if "upstream" in run.spec.counters else "matmul"),
        ours=_counted(run.plan, "matmul", rows),
    )


def _counted(plan: Plan, counter: str, rows: int) -> Data:
    flops = total_flops(plan, counter, rows)
    return dict(flops=flops, speedup=uncached_flops(plan, counter, rows) / flops, steps=dict(plan.kind_counts()))


def _printed(value: float) -> str:
    """Two digits after the point, three if the number has more."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.3f}"


def _cells(counted: Data) -> tuple[str, str]:
    """TFLOPs and speed-up."""
    return _tflops(counted), f"{counted['speedup']:.2f}"


def _tflops(counted: Data) -> str:
    return f"{counted['rounded_tflops']:.2f}" if "rounded_tflops" in counted else f"{counted['flops'] / 1e12:.3f}"


def table_text(data: Sequence[Data]) -> str:
    """A block of lines per preset, one line per published row; sources and notes follow as numbered footnotes."""
    sources: dict[str, int] = {}
    quality = [key for key in QUALITY if any(key in row["numbers"] for entry in data for row in entry["published"])]
    header = ["preset", "exact TFLOPs", "x", "printed TFLOPs", "x", "ours TFLOPs", "x", *(QUALITY[key] for key in quality), "source"]
    rows = []
    for entry in data:
        counter = None
        if not entry["published"]:
            cells = [*_cells(entry["exact"]), "", "", *_cells(entry["ours"])]
            rows.append([entry["preset"], *cells, *("" for _ in quality), ""])
        for place, row in enumerate(entry["published"]):
            numbers = {key: _printed(value) for key, value in row["numbers"].items()}
            text = row["source"] + (f" ({row['note']})" if row["note"] else "")
            first, counts_anew, counter = place == 0, row["counter"] != counter, row["counter"]
            rows.append([
                entry["preset"] if first else "",
                *(_cells(row["exact"]) if counts_anew else ("", "")),
                numbers.get("tflops", ""), numbers.get("speedup", ""),
                *(_cells(entry["ours"]) if first else ("", "")),
                *(numbers.get(key, "") for key in quality),
                f"[{sources.setdefault(text, len(sources) + 1)}]",
            ])  # fmt: skip
    notes = "".join(f"\n[{number}] {text}" for text, number in sources.items())
    legend = (
        "FLOPs of one image. exact: the published code's counter on its own steps, or the counter of a row's source where they differ. "
        "ours: all matrix products on our default steps."
    )
    return f"{columns(header, rows)}\n\n{legend}{notes}"
