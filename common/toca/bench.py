"""What the forks' benchmarks share: marks in time, steps by kind, comparison with the uncached run, the dated file of results."""

from __future__ import annotations

import datetime
import json
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from toca.files import atomic_path
from toca.flops import step_flops, total_flops
from toca.memory import MODULATION_BUDGET, Held, predict
from toca.methods import Method
from toca.plan import Plan

Result = dict[str, Any]


class Clock:
    """Marks in time: CUDA events, which do not stall the device, or the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def mark(self) -> None:
        if self.device.type == "cuda":
            self.marks.append(torch.cuda.Event(enable_timing=True))
            self.marks[-1].record()
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Seconds between neighbouring marks."""
        pairs = zip(self.marks, self.marks[1:])
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) / 1000 for a, b in pairs]
        return [b - a for a, b in pairs]


@dataclass
class Measured:
    """One run: seconds before its first step and of every step, and of what follows the last; what the cache held after every step."""

    plan: Plan
    before: float
    steps: list[float]
    after: float
    held: list[Held] = field(repr=False)
    device_peak: int | None = None

    @property
    def seconds(self) -> float:
        return self.before + sum(self.steps) + self.after


def result_of(run: Measured, method: Method, rows: int, element_size: int, modulation_budget: int = MODULATION_BUDGET) -> Result:
    """A run in numbers. rows: of the batch. The bytes held are those of the step that holds most, beside what was predicted for it."""
    peak = max(run.held, key=lambda held: held.total)
    predicted = max(held.total for held in predict(run.plan, method, rows, element_size, modulation_budget))
    return dict(
        steps=dict(run.plan.kind_counts()),
        seconds=run.seconds,
        tflops=total_flops(run.plan, "matmul", rows) / 1e12,
        device_peak_bytes=run.device_peak,
        cache_bytes_held=peak.total,
        cache_bytes_predicted=predicted,
        cache_parts=asdict(peak),
        modulation_seconds=run.before,
        groups=step_groups(run.plan, run.steps),
    )


def step_groups(plan: Plan, seconds: Sequence[float]) -> list[Result]:
    """Steps of one kind together: how many, median seconds, mean FLOPs of a batch row. Partial steps in tenths of tokens refreshed."""
    tokenwise = [site for site in plan.spec.sites() if plan.spec.branch(site).tokenwise]
    tokens = sum(plan.spec.branch(site).tokens for site in tokenwise)
    groups: dict[str, list[tuple[float, int]]] = {}
    for step, (row, duration) in enumerate(zip(plan.steps, seconds, strict=True)):
        name = plan.step_kind(step)
        if name == "full" and any(action.score for action in row.values()):
            name = "full, scored"
        elif name == "full" and any(action.keep for action in row.values()):
            name = "full, stored"
        elif name == "partial":
            tenth = sum(row[site].tokens for site in tokenwise) * 10 // tokens
            name = f"partial, {tenth * 10}-{tenth * 10 + 10}% of tokens"
        groups.setdefault(name, []).append((duration, step_flops(plan.spec, row)))
    return [
        dict(kind=name, count=len(runs), seconds=median(s for s, _ in runs), row_flops=sum(f for _, f in runs) / len(runs))
        for name, runs in groups.items()
    ]


def compare(result: Result, base: Result) -> Result:
    """A result with its speed-ups over the uncached run, in FLOPs and in time, and how many of its steps take as long."""
    return result | dict(
        flops_speedup=base["tflops"] / result["tflops"],
        time_speedup=base["seconds"] / result["seconds"],
        plain_steps_of_equal_time=round(sum(base["steps"].values()) * result["seconds"] / base["seconds"], 1),
    )


def print_result(title: str, result: Result, base: Result) -> None:
    """base: the uncached run, or the result itself."""
    line = f"\n{title}: {result['seconds']:.2f} s, {result['tflops']:.2f} TFLOPs, cache {result['cache_bytes_held'] / 2**20:.1f} MiB"
    line += f" ({result['cache_bytes_predicted'] / 2**20:.1f} predicted)"
    if result["device_peak_bytes"]:
        line += f", peak {result['device_peak_bytes'] / 2**30:.2f} GiB"
    if result is not base:
        time_speedup, flops_speedup = result["time_speedup"], result["flops_speedup"]
        line += f", {flops_speedup:.2f}x FLOPs, {time_speedup:.2f}x time ({time_speedup / flops_speedup:.0%} of it)"
    print(line)
    plain = base["groups"][0]
    for group in result["groups"]:
        time_share, flops_share = group["seconds"] / plain["seconds"], group["row_flops"] / plain["row_flops"]
        line = f"  {group['kind']:<34}{group['count']:>4} x {group['seconds']:8.4f} s"
        print(f"{line}  {time_share:7.1%} of an uncached step's time, {flops_share:6.1%} of its FLOPs", flush=True)


def machine(device: torch.device) -> Result:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return dict(cpu=names[0] if names else platform.processor(), threads=torch.get_num_threads(), gpu=gpu, torch=torch.__version__)


def report_path(given: str | None, fork: Path, device: torch.device) -> Path:
    """Where results go: benchmarks/DATE-DEVICE.json in a fork's folder unless said otherwise."""
    return Path(given) if given else fork / "benchmarks" / f"{datetime.date.today().isoformat()}-{device.type}.json"


def save(path: Path, device: torch.device, results: Sequence[Result]) -> None:
    """Write all results so far: a long benchmark that is cut short keeps what it has."""
    content = dict(date=datetime.date.today().isoformat(), machine=machine(device), results=list(results))
    with atomic_path(path) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
