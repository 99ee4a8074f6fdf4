"""`toca table`: published settings, the numbers printed for them, and ours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from decimal import Decimal

from toca.cli.report import Data, columns
from toca.methods import NoCaching
from toca.planning.flops import rounded_tflops, total_flops
from toca.planning.plan import Plan
from toca.planning.run import PlannedRun
from toca.presets import NUMBERS, Preset, Published


def preset_data(name: str, preset: Preset, run: PlannedRun) -> Data:
    """exact: the published code's counter on its own steps, with `rounded_tflops` where the printed totals are sums of rounded steps;
    of every published row the same by the row's counter. ours: all matrix products on our default steps. FLOPs of one image; speed-ups
    over the uncached run of `baseline` steps."""
    plan = run.plan
    baseline = NoCaching().plan(run.spec, preset.baseline or run.num_steps)
    if any(setting.name == "upstream_exact" for setting in fields(run.method)):
        plan = replace(run.method, upstream_exact=True).plan(run.spec, run.num_steps)
    rows = run.rows_per_image

    def exact(counter: str) -> Data:
        rounded = dict(rounded_tflops=rounded_tflops(plan, counter, rows)) if run.spec.published.printed_units else {}
        return _counted(plan, baseline, counter, rows) | rounded

    return dict(
        preset=name,
        flags=dict(preset.flags),
        baseline=baseline.num_steps,
        published=[asdict(row) | dict(exact=exact(row.counter)) for row in preset.published],
        exact=exact("upstream" if "upstream" in run.spec.counters else "matmul"),
        ours=_counted(run.plan, baseline, "matmul", rows),
    )


def printed_data(name: str, published: Sequence[Published], baseline: int) -> Data:
    """Of rows that no setting of ours stands for: the numbers alone."""
    return dict(
        preset=name, flags=None, baseline=baseline, published=[asdict(row) | dict(exact=None) for row in published], exact=None, ours=None
    )


def _counted(plan: Plan, baseline: Plan, counter: str, rows: int) -> Data:
    flops = total_flops(plan, counter, rows)
    return dict(flops=flops, speedup=total_flops(baseline, counter, rows) / flops, steps=dict(plan.kind_counts()))


def _printed(value: float) -> str:
    """Two to four digits after the point, as many as the number has; of longer ones three."""
    digits = next((digits for digits in (2, 3, 4) if round(value, digits) == value), 3)
    return f"{value:.{digits}f}"


def _cells(counted: Data | None) -> tuple[str, str]:
    """TFLOPs and speed-up."""
    return (_tflops(counted), f"{counted['speedup']:.2f}") if counted else ("", "")


def _tflops(counted: Data) -> str:
    return f"{counted['rounded_tflops']:.2f}" if "rounded_tflops" in counted else f"{counted['flops'] / 1e12:.3f}"


def off(row: Data) -> float | None:
    """By how much the FLOPs counted for a published row differ from the printed ones; None where they agree in every printed digit."""
    if (printed := row["numbers"].get("tflops")) is None or not row["exact"]:
        return None
    counted = row["exact"].get("rounded_tflops", row["exact"]["flops"] / 1e12)
    last_digit = 10.0 ** Decimal(repr(printed)).as_tuple().exponent
    return None if abs(counted - printed) <= 0.501 * last_digit else counted / printed - 1


def table_text(data: Sequence[Data]) -> str:
    """A table for every baseline, one line per published row; sources and notes follow as numbered footnotes."""
    sources: dict[str, int] = {}
    tables = [
        _table([entry for entry in data if entry["baseline"] == steps], steps, sources)
        for steps in dict.fromkeys(e["baseline"] for e in data)
    ]
    notes = "".join(f"\n[{number}] {text}" for text, number in sources.items())
    legend = (
        "FLOPs of one image. exact: the published code's counter on its own steps, or the counter of a row's source where they differ. "
        "ours: all matrix products on our default steps. off: how far exact is from a printed total that it does not equal to the last "
        "printed digit. Names without exact are of methods that are not here, or of settings that are not stated."
    )
    return "\n\n".join([*tables, legend]) + notes


def _table(entries: Sequence[Data], steps: int, sources: dict[str, int]) -> str:
    """Speed-ups refer to one baseline. Footnotes are added to `sources`."""
    found = {key for entry in entries for row in entry["published"] for key in row["numbers"]}
    quality = [key for key in NUMBERS if key in found - {"tflops", "speedup"}]
    header = ["preset", "exact TFLOPs", "x", "printed TFLOPs", "x", "ours TFLOPs", "x", "off", *(NUMBERS[key] for key in quality), "source"]
    rows = []
    for entry in entries:
        counter = None
        if not entry["published"]:
            rows.append([entry["preset"], *_cells(entry["exact"]), "", "", *_cells(entry["ours"]), *("" for _ in quality), "", ""])
        for place, row in enumerate(entry["published"]):
            numbers = {key: _printed(value) for key, value in row["numbers"].items()}
            text = row["source"] + (f" ({row['note']})" if row["note"] else "")
            first, counts_anew, counter = place == 0, row["counter"] != counter, row["counter"]
            difference = off(row)
            rows.append([
                entry["preset"] if first else "",
                *(_cells(row["exact"]) if counts_anew else ("", "")),
                numbers.get("tflops", ""), numbers.get("speedup", ""),
                *(_cells(entry["ours"]) if first else ("", "")),
                "" if difference is None else f"{difference:+.2%}",
                *(numbers.get(key, "") for key in quality),
                f"[{sources.setdefault(text, len(sources) + 1)}]",
            ])  # fmt: skip
    return f"x: over {steps} uncached steps\n\n{columns(header, rows)}"
