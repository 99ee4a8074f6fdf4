"""What the command `toca` prints, as data and as text. FLOPs and bytes are plain ints; no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from itertools import groupby
from typing import Any

from toca.methods import Method
from toca.planning.flops import rounded_tflops, step_flops, total_flops, uncached_flops
from toca.planning.memory import DTYPES, MODULATION_BUDGET, Held, attention_maps, predict, table_elements
from toca.planning.run import PlannedRun
from toca.planning.spec import HIDDEN, Stack

Data = dict[str, Any]


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)) -> str:
    """A table in plain text; the columns `left` are aligned to the left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(widths[i]) if i in left else cell.rjust(widths[i]) for i, cell in enumerate(cells)]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def describe(method: Method) -> str:
    """A method's name, its first two settings, and those that are not the default."""
    settings = [
        f"{setting.name}={getattr(method, setting.name)}"
        for place, setting in enumerate(fields(method))
        if place < 2 or getattr(method, setting.name) != setting.default
    ]
    return f"{method.name}({', '.join(settings)})" if settings else method.name


def folder_label(method: Method) -> str:
    """The part of a folder's name that tells runs by their method and its settings."""
    settings = [str(getattr(method, flag.field)) for flag in method.flags if flag.in_name]
    return "_".join([method.label or method.name, *settings])


def heading(run: PlannedRun) -> str:
    return f"{run.title}, {describe(run.method)}"


def branch_names(run: PlannedRun) -> dict[tuple[str, str], str]:
    """(stack, branch) -> its name, with the stack's where there are several."""
    several = len(run.spec.stacks) > 1
    return {(s.name, b.name): f"{s.name}.{b.name}" if several else b.name for s in run.spec.stacks for b in s.branches}


def run_data(run: PlannedRun) -> Data:
    settings = asdict(run.method)
    return dict(run=run.title, method=run.method.name, settings=settings, num_steps=run.num_steps, rows_per_image=run.rows_per_image)


def run_summary(run: PlannedRun) -> Data:
    """What a sampling run does by its plan, for the terminal and for the manifest beside its pictures."""
    plan, rows = run.plan, run.rows_per_image
    flops, uncached = total_flops(plan, "matmul", rows), uncached_flops(plan, "matmul", rows)
    return dict(
        method=run.method.name,
        steps=dict(plan.kind_counts()),
        step_kinds=[plan.step_kind(step) for step in range(plan.num_steps)],
        tokens_refreshed=round(plan.tokens_refreshed(), 4),
        tflops_per_image=flops / 1e12,
        flops_speedup=round(uncached / flops, 3),
    )


def summary_line(summary: Data) -> str:
    steps = ", ".join(f"{count} {kind}" for kind, count in summary["steps"].items())
    flops = f"{summary['tflops_per_image']:.3f} TFLOPs per image, {summary['flops_speedup']:.2f}x less than uncached"
    return f"{summary['method']}: {steps} steps; {summary['tokens_refreshed']:.1%} of MLP tokens computed; {flops}"


def flops_lines(run: PlannedRun, images: int) -> str:
    """What upstream's counter prints for a whole batch, and every matrix product counted at two per multiply-add."""
    counted = {counter: total_flops(run.plan, counter, run.rows_per_image * images) / 1e12 for counter in reversed(run.spec.counters[:2])}
    return "\n".join(f"{counter}: {tflops} TFLOPs for {images} image(s)" for counter, tflops in counted.items())


def step_range(steps: Sequence[int]) -> str:
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]}-{steps[-1]}"


# ---- toca plan ------------------------------------------------------------------------------------------------------------------------


def plan_data(run: PlannedRun) -> Data:
    """Every step in execution order; FLOPs are of one image."""
    plan, steps = run.plan, []
    for step, row in enumerate(plan.steps):
        branches = {}
        for (stack, branch), name in branch_names(run).items():
            actions = [row[stack, layer, branch] for layer in range(run.spec.stack(stack).depth)]
            branches[name] = dict(kinds=[a.kind.name.lower() for a in actions], tokens=[a.tokens for a in actions])
        flops = {counter: run.rows_per_image * step_flops(run.spec, row, counter) for counter in run.spec.counters}
        hidden = row[HIDDEN].kind.name.lower()
        steps.append(dict(step=step, kind=plan.step_kind(step), flops=flops, hidden=hidden, branches=branches))
    return run_data(run) | dict(kinds=dict(plan.kind_counts()), steps=steps)


def plan_text(run: PlannedRun) -> str:
    """Neighbouring steps of one kind are one line."""
    plan, names = run.plan, branch_names(run)
    uncached = uncached_flops(plan, rows=run.rows_per_image)
    header = ["steps", "kind", *(cell for name in names.values() for cell in (f"{name} tokens", "share")), "GFLOPs/step", "of uncached"]
    rows = []
    for kind, group in groupby(range(plan.num_steps), plan.step_kind):
        steps = list(group)
        flops = run.rows_per_image * sum(step_flops(run.spec, plan.steps[step]) for step in steps) / len(steps)
        tokens = [cell for stack, branch in names for cell in _tokens(run, run.spec.stack(stack), branch, steps)]
        rows.append([step_range(steps), kind, *tokens, f"{flops / 1e9:,.1f}", f"{flops / uncached * plan.num_steps:.1%}"])
    return f"{heading(run)}\n\n{columns(header, rows, left=(0, 1))}\n\n{plan_summary(run)}"


def plan_summary(run: PlannedRun) -> str:
    plan, rows = run.plan, run.rows_per_image
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan.kind_counts().items())
    tokenwise = dict.fromkeys(branch.name for stack in run.spec.stacks for branch in stack.branches if branch.tokenwise)
    refreshed = f"; {plan.tokens_refreshed():.1%} of {'/'.join(tokenwise)} tokens computed" if tokenwise else ""
    total, uncached = total_flops(plan, rows=rows), uncached_flops(plan, rows=rows)
    flops = f"{total / 1e12:.3f} TFLOPs a sample, {uncached / total:.2f}x fewer than {uncached / 1e12:.3f}"
    return f"{plan.num_steps} steps: {kinds}{refreshed}; {flops}"


def _tokens(run: PlannedRun, stack: Stack, branch: str, steps: Sequence[int]) -> tuple[str, str]:
    """Tokens that a branch computes in its layers at some steps, as fewest..most and as their mean share."""
    counts = [run.plan.steps[step][stack.name, layer, branch].tokens for step in steps for layer in range(stack.depth)]
    if not any(counts):
        return "-", ""
    fewest, most = min(counts), max(counts)
    share = sum(counts) / len(counts) / stack.branch(branch).tokens
    return str(most) if fewest == most else f"{fewest}..{most}", f"{share:.1%}"


# ---- toca flops -----------------------------------------------------------------------------------------------------------------------


def flops_data(run: PlannedRun, images: int) -> Data:
    plan, rows = run.plan, run.rows_per_image * images
    counters = {}
    for counter in run.spec.counters:
        kinds = dict.fromkeys(plan.kind_counts(), 0)
        for step, row in enumerate(plan.steps):
            kinds[plan.step_kind(step)] += rows * step_flops(run.spec, row, counter)
        total, uncached = total_flops(plan, counter, rows), uncached_flops(plan, counter, rows)
        if run.spec.run_cost:
            kinds["once"] = total - sum(kinds.values())
        counters[counter] = dict(total=total, uncached=uncached, speedup=uncached / total, kinds=kinds)
    if run.spec.published.printed_units:
        counters["upstream"]["rounded_tflops"] = rounded_tflops(plan, rows=rows)
    return run_data(run) | dict(heading=heading(run), images=images, steps=dict(plan.kind_counts()), counters=counters)


def flops_text(data: Data) -> str:
    counters = data["counters"]
    header = ["steps", "", *(cell for counter in counters for cell in (f"{counter} TFLOPs", "per step"))]
    counts = {kind: data["steps"].get(kind, 1) for kind in counters["matmul"]["kinds"]}  # what is computed once counts as one step
    lines = {kind: (count, [c["kinds"][kind] for c in counters.values()]) for kind, count in counts.items()}
    lines["all"] = data["num_steps"], [c["total"] for c in counters.values()]
    lines["uncached"] = data["num_steps"], [c["uncached"] for c in counters.values()]
    rows = [[kind, str(n), *(cell for t in totals for cell in (tera(t), f"{t / n / 1e12:.4f}"))] for kind, (n, totals) in lines.items()]
    rows.append(["speed-up", "", *(cell for c in counters.values() for cell in (f"{c['speedup']:.3f}x", ""))])
    images = "1 image" if data["images"] == 1 else f"{data['images']} images"
    text = f"{data['heading']}: {images}, {data['rows_per_image'] * data['images']} batch rows\n\n{columns(header, rows)}"
    if rounded := counters.get("upstream", {}).get("rounded_tflops"):
        text += f"\n\nas published tables add it up, every step rounded: {rounded:.2f} TFLOPs"
    return text


def tera(flops: int) -> str:
    """All digits of a count in units of 10^12."""
    return f"{flops // 10**12}.{flops % 10**12:012d}"


# ---- toca memory ----------------------------------------------------------------------------------------------------------------------


def memory_data(run: PlannedRun, images: int, dtype: str) -> Data:
    rows, size = run.rows_per_image * images, DTYPES[dtype]
    held = predict(run.plan, run.method, rows, size)
    peak = max(range(run.num_steps), key=lambda step: held[step].total)
    tables = sum(table_elements(run.plan, stack) for stack in run.spec.stacks) * rows * size
    return run_data(run) | dict(
        heading=heading(run),
        batch=images,
        rows=rows,
        dtype=dtype,
        steps=[asdict(h) | dict(total=h.total) for h in held],
        peak=asdict(held[peak]) | dict(total=held[peak].total, step=peak),
        modulation_not_precomputed=tables - held[peak].modulation,
        published_attention_maps=attention_maps(run.plan, run.method, rows, size),
    )


def memory_text(data: Data) -> str:
    """Neighbouring steps that look alike are one line. Parts that hold nothing at all are left out."""
    names = [f.name for f in fields(Held)]
    parts = [name for name in names if any(step[name] for step in data["steps"])]
    lines = [[mebi(step[part]) for part in (*parts, "total")] for step in data["steps"]]
    rows = [[step_range(list(group)), *cells] for cells, group in groupby(range(len(lines)), lines.__getitem__)]
    notes = [f"peak {size(data['peak']['total'])} after step {data['peak']['step']}"]
    if left_out := data["modulation_not_precomputed"]:
        notes.append(f"modulations of all steps ({size(left_out)}) exceed the budget of {size(MODULATION_BUDGET)}: computed at every step")
    if maps := data["published_attention_maps"]:
        outputs = max(step["outputs"] for step in data["steps"])
        notes.append(f"the published code keeps {size(outputs + maps)} through the run: outputs, and {size(maps)} of attention maps")
    title = f"{data['heading']}: batch {data['batch']} ({data['rows']} rows), {data['dtype']}"
    return f"{title}\nMiB held after every step\n\n{columns(['steps', *parts, 'total'], rows)}\n\n" + "\n".join(notes)


def mebi(count: int) -> str:
    return f"{count / 2**20:,.2f}"


def size(count: int) -> str:
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.2f} MiB"


# ---- toca compare ---------------------------------------------------------------------------------------------------------------------


def compare_text(data: Data) -> str:
    psnr = math.inf if data["psnr"] is None else data["psnr"]
    equal = f" ({data['identical']} pairs are identical)" if data["identical"] else ""
    videos = f" of frames, in {data['videos']} video{'s' * (data['videos'] != 1)}" if data["videos"] else ""
    return f"{data['pairs']} pairs{videos}: PSNR {psnr:.3f} dB, SSIM {data['ssim']:.4f}{equal}"
