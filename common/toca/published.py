"""`toca table`: published settings, the numbers printed for them, and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace

from toca.flops import rounded_tflops, total_flops, uncached_flops
from toca.plan import Plan
from toca.presets import Preset
from toca.report import Data, columns
from toca.run import PlannedRun

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
    """exact: the published code's counter on its own steps, with `rounded_tflops` where the printed totals are sums of rounded steps.
    ours: all matrix products on our default steps. FLOPs of one image."""
    exact = run.plan
    if any(setting.name == "upstream_exact" for setting in fields(run.method)):
        exact = replace(run.method, upstream_exact=True).plan(run.spec, run.num_steps)
    rows = run.rows_per_image
    rounded = dict(rounded_tflops=rounded_tflops(exact, rows=rows)) if run.spec.rounds_steps else {}
    return dict(
        preset=name,
        flags=dict(preset.flags),
        published=[asdict(row) for row in preset.published],
        exact=_counted(exact, "upstream", rows) | rounded,
        ours=_counted(run.plan, "matmul", rows),
    )


def _counted(plan: Plan, counter: str, rows: int) -> Data:
    flops = total_flops(plan, counter, rows)
    return dict(flops=flops, speedup=uncached_flops(plan, counter, rows) / flops, steps=dict(plan.kind_counts()))


def _printed(value: float) -> str:
    """Two digits after the point, three if the number has more."""
    return f"{value:.2f}" if round(value, 2) == value else f"{value:.3f}"


def _tflops(counted: Data) -> str:
    return f"{counted['rounded_tflops']:.2f}" if "rounded_tflops" in counted else f"{counted['flops'] / 1e12:.3f}"


def table_text(data: Sequence[Data]) -> str:
    """A block of lines per preset, one line per published row; sources and notes follow as numbered footnotes."""
    sources: dict[str, int] = {}
    quality = [key for key in QUALITY if any(key in row["numbers"] for entry in data for row in entry["published"])]
    header = ["preset", "exact TFLOPs", "x", "printed TFLOPs", "x", "ours TFLOPs", "x", *(QUALITY[key] for key in quality), "source"]
    rows = []
    for entry in data:
        counted = {key: (_tflops(entry[key]), f"{entry[key]['speedup']:.2f}") for key in ("exact", "ours")}
        for place, row in enumerate(entry["published"]):
            numbers = {key: _printed(value) for key, value in row["numbers"].items()}
            text = row["source"] + (f" ({row['note']})" if row["note"] else "")
            first = place == 0
            rows.append([
                entry["preset"] if first else "",
                *(counted["exact"] if first else ("", "")),
                numbers.get("tflops", ""), numbers.get("speedup", ""),
                *(counted["ours"] if first else ("", "")),
                *(numbers.get(key, "") for key in quality),
                f"[{sources.setdefault(text, len(sources) + 1)}]",
            ])  # fmt: skip
    notes = "\n".join(f"[{number}] {text}" for text, number in sources.items())
    legend = "FLOPs of one image. exact: the published code's counter on its own steps. ours: all matrix products on our default steps."
    return f"{columns(header, rows)}\n\n{legend}\n{notes}"
