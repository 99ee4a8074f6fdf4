"""What the forks' benchmarks share: marks in time, steps by kind, comparison with the uncached run, the result file."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from toca.engine.cache import Cache
from toca.methods import Method
from toca.planning.flops import step_flops, total_flops
from toca.planning.memory import Held, predict
from toca.planning.plan import Plan
from toca.runs.clock import Clock
from toca.runs.files import atomic_path
from toca.runs.outputs import check_file
from toca.runs.programs import DTYPES, device_from, reproducible_matmuls

Result = dict[str, Any]
MOST_BATCH = 2**20


@dataclass
class Watch:
    """Marks a run at every model call, and notes what its cache holds; `start` it before the run, `stop` it after."""

    cache: Cache
    clock: Clock
    held: list[Held] = field(default_factory=list)

    def start(self) -> None:
        if self.clock.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.clock.device)
        self.clock.mark()

    def model(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """The network with a mark after every call."""

        def call(*args: Any, **kwargs: Any) -> Tensor:
            out = network(*args, **kwargs)
            self.held.append(self.cache.held)
            self.clock.mark()
            return out

        return call

    def stop(self) -> Result:
        """The plan, seconds in all and of every step, what the cache held when it held most, the device's peak; `before`: seconds between
        the start and a mark set before the first step, for what a run prepares."""
        self.clock.mark()
        device, seconds = self.clock.device, self.clock.seconds()
        first = len(seconds) - 1 - len(self.held)
        peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
        result = dict(plan=self.cache.plan, seconds=sum(seconds), before=sum(seconds[:first]), steps=seconds[first:-1])
        return result | dict(held=max(self.held, key=lambda held: held.total), device_peak=peak)


@contextmanager
def seconds_inside(device: torch.device, functions: Mapping[str, tuple[Any, str]]) -> Iterator[Callable[[], dict[str, float]]]:
    """Time functions, given as (owner, attribute) by a name; calls inside a timed call belong to that. Yields a reader of the seconds."""
    spans: list[tuple[str, Clock]] = []
    running: list[str] = []
    originals = {name: getattr(*place) for name, place in functions.items()}

    def timed(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if running:
                return originals[name](*args, **kwargs)
            running.append(name)
            clock = Clock(device)
            clock.mark()
            value = originals[name](*args, **kwargs)
            clock.mark()
            spans.append((running.pop(), clock))
            return value

        return call

    def read() -> dict[str, float]:
        return {name: sum(sum(clock.seconds()) for of, clock in spans if of == name) for name in functions}

    for name, place in functions.items():
        setattr(*place, timed(name))
    try:
        yield read
    finally:
        for name, place in functions.items():
            setattr(*place, originals[name])


def step_groups(plan: Plan, seconds: Sequence[float]) -> list[Result]:
    """The timed steps, the first ones of a plan, by kind: how many, median seconds, mean FLOPs of a batch row. Partial steps in tenths of
    the tokens of branches that refresh any."""
    sites = [site for site in plan.spec.sites() if plan.spec.branch(site).tokenwise]
    groups: dict[str, list[tuple[float, int]]] = {}
    for step, (row, duration) in enumerate(zip(plan.steps, seconds)):
        name = plan.step_kind(step)
        if name == "full" and any(action.score for action in row.values()):
            name = "full, scored"
        elif name == "full" and any(action.keep for action in row.values()):
            name = "full, stored"
        elif name == "partial":
            tenth = int(10 * sum(row[site].tokens for site in sites) / sum(plan.spec.branch(site).tokens for site in sites)) * 10
            name = f"partial, {tenth}-{tenth + 10}% of tokens"
        groups.setdefault(name, []).append((duration, step_flops(plan.spec, row)))
    return [
        dict(kind=name, count=len(runs), seconds=median(s for s, _ in runs), row_flops=sum(f for _, f in runs) / len(runs))
        for name, runs in groups.items()
    ]


def result_of(run: Result, method: Method, rows: int, element_size: int, base: Result | None, **predicting: int) -> Result:
    """A run in numbers, and how it compares with the uncached one. run: of `Watch.stop`; predicting: options of `predict`."""
    plan: Plan = run["plan"]
    flops = total_flops(plan, "matmul", rows)
    predicted = max(held.total for held in predict(plan, method, rows, element_size, **predicting))
    result = dict(steps=dict(plan.kind_counts()), seconds=run["seconds"], tflops=flops / 1e12, device_peak_bytes=run["device_peak"])
    result |= dict(cache_bytes_held=run["held"].total, cache_bytes_predicted=predicted, cache_parts=asdict(run["held"]))
    result |= dict(groups=step_groups(plan, run["steps"]))
    if base:
        result["flops_speedup"], result["time_speedup"] = base["tflops"] * 1e12 / flops, base["seconds"] / run["seconds"]
        result["plain_steps_of_equal_time"] = round(sum(base["steps"].values()) * run["seconds"] / base["seconds"], 1)
    return result


def print_result(title: str, result: Result, base: Result | None) -> None:
    line = f"\n{title}: {result['seconds']:.2f} s, {result['tflops']:.2f} TFLOPs, cache {result['cache_bytes_held'] / 2**20:.1f} MiB"
    line += f" ({result['cache_bytes_predicted'] / 2**20:.1f} predicted)"
    if result["device_peak_bytes"]:
        line += f", peak {result['device_peak_bytes'] / 2**30:.2f} GiB"
    if base:
        time_speedup, flops_speedup = result["time_speedup"], result["flops_speedup"]
        line += f", {flops_speedup:.2f}x FLOPs, {time_speedup:.2f}x time ({time_speedup / flops_speedup:.0%} of it)"
    print(line)
    plain = (base or result)["groups"][0]
    for group in result["groups"]:
        time_share, flops_share = group["seconds"] / plain["seconds"], group["row_flops"] / plain["row_flops"]
        line = f"  {group['kind']:<34}{group['count']:>4} x {group['seconds']:8.4f} s"
        print(f"{line}  {time_share:7.1%} of an uncached step's time, {flops_share:6.1%} of its FLOPs", flush=True)


def commit(folder: Path) -> str | None:
    """The commit that a checkout around a folder is at, with "+" if files of it were changed; None outside of one."""
    try:
        found = ["git", "-C", str(folder), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(found, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def machine(device: torch.device) -> Result:
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return dict(cpu=names[0] if names else platform.processor(), threads=torch.get_num_threads(), gpu=gpu, torch=torch.__version__)


def add_flags(parser: argparse.ArgumentParser, methods: Mapping[str, Method], batch: Sequence[int] = (1,)) -> None:
    """The flags of every benchmark."""
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=["fp32"])
    parser.add_argument("--batch", nargs="+", type=_images, default=list(batch), help="images; each is two rows, with guidance")
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--output", default=None, help="result file (default: benchmarks/DATE-DEVICE.json in the fork's folder, else here)")


def _images(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_BATCH:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 to {MOST_BATCH}, got {text[:40]!r}")
    return int(text)


def run_all(args: argparse.Namespace, folder: Path, cases: Sequence[Any], bench: Callable[..., Iterable[Result]]) -> None:
    """bench(case, dtype, batch, args, device) for every case and every --dtype and --batch, into the result file of `folder`.

    folder: the fork's, in a source checkout; where there is none it is `benchmarks` in the current folder.
    Raises ValueError on a --device or --output that cannot be.
    """
    reproducible_matmuls()  # as the sampling programs
    report = Report(args, folder)
    for case, dtype, batch in product(cases, args.dtype, args.batch):
        for result in bench(case, dtype, batch, args, report.device):
            report.add([result])
    print(f"\n{report.path}")


class Report:
    """The result file of a benchmark, whole after every `add`: a long one that is cut short keeps what it has."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.device, self.date = device_from(args.device), datetime.date.today().isoformat()
        self.path = Path(args.output or (folder if folder.is_dir() else Path("benchmarks")) / f"{self.date}-{self.device.type}.json")
        check_file(self.path, "--output")
        self.results: list[Result] = []
        self.made_by = dict(command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]), commit=commit(folder.parent))

    def add(self, results: Sequence[Result]) -> None:
        self.results += results
        content = dict(date=self.date, machine=machine(self.device), **self.made_by, results=self.results)
        with atomic_path(self.path) as part:
            part.write_text(json.dumps(content, indent=1) + "\n")
