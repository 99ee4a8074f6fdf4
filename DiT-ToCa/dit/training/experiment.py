"""A training run on disk: its folder, checkpoints and log."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from dit.layouts import shapes
from dit.model import DiT
from dit.training.flags import TrainSettings
from toca.console import announce
from toca.loading.weights import check_header, check_tensors, load_checkpoint, load_into
from toca.runs.files import atomic_path, remove_parts
from toca.runs.outputs import check_folder

CHECKPOINTS, LOCK = "checkpoints", ".lock"


@contextmanager
def open_folder(settings: TrainSettings) -> Iterator[Path]:
    """<results>/<3-digit index>-<model>, a new one unless resuming, in which nobody else trains meanwhile.

    Raises ValueError if another run is at work there.
    """
    if settings.resume:
        folder, given = resumed_folder(settings.resume), Path(settings.results_dir).resolve()
        if given not in folder.resolve().parents:
            announce(f"a resumed run goes on in its own folder, {folder}; --results-dir {settings.results_dir} is for new ones")
    else:
        folder = _new_folder(Path(settings.results_dir), settings.model.replace("/", "-"))
    (folder / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ValueError(f"another run is at work in {folder}: wait for it") from error
    try:
        remove_parts(folder / CHECKPOINTS)
        remove_parts(folder)
        yield folder
    finally:
        lock.release()


def resumed_folder(checkpoint: str) -> Path:
    """The folder of a run by one of its checkpoints. Raises ValueError if that does not lie in one."""
    path = Path(checkpoint).resolve()
    if path.parent.name != CHECKPOINTS:
        raise ValueError(f"--resume {checkpoint}: it lies in no folder {CHECKPOINTS} of a run; --init starts a new run from its weights")
    return path.parents[1]


def _new_folder(results: Path, model: str) -> Path:
    """The next number's, which two runs that start at once do not share."""
    while True:
        taken = [int(m[1]) for p in results.glob("*") if (m := re.match(r"(\d{3,})-", p.name))]
        folder = results / f"{max(taken, default=-1) + 1:03d}-{model}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder


def check_place(settings: TrainSettings) -> None:
    """Make sure that a checkpoint can be written. Raises ValueError."""
    weights = 4 * sum(math.prod(shape) for shape in shapes(settings.config).values())
    needed = 5 * weights  # the model, its average twice, and two moments
    if settings.resume:
        check_folder(resumed_folder(settings.resume), "--resume", needed)
    else:
        check_folder(Path(settings.results_dir), "--results-dir", needed)


def save(folder: Path, step: int, model: DiT, ema: DiT, opts: Sequence[torch.optim.Optimizer], settings: TrainSettings) -> None:
    """`checkpoints/<step>.pt` = {model, ema, opt, args, step}, all plain, and the EMA weights alone as safetensors."""
    state = dict(model=model.state_dict(), ema=ema.state_dict(), opt=[o.state_dict() for o in opts], args=settings.noted(), step=step)
    path = folder / CHECKPOINTS / f"{step:07d}.pt"
    with atomic_path(path.with_suffix(".safetensors")) as part:
        save_file({k: v.contiguous() for k, v in ema.state_dict().items()}, part)
    with atomic_path(path) as part, open(part, "wb") as file:  # an open file: torch's own writer tells of a full disk in its own words
        torch.save(state, file)


def check_resumed(path: str, settings: TrainSettings) -> None:
    """Make sure, without reading tensors, that a checkpoint is one of this program and of a run with these settings. Raises ValueError."""
    resumed_folder(path)
    state = load_checkpoint(path, "meta")
    if lacking := [key for key in ("model", "ema", "opt", "step") if key not in state]:
        raise ValueError(f"{path} cannot be resumed, it lacks {', '.join(lacking)}; --init starts a new run from its weights")
    if not isinstance(state["step"], int) or state["step"] < 0 or not isinstance(state["opt"], list):
        raise ValueError(f"{path} cannot be resumed: its step is {state['step']!r}, its opt a {type(state['opt']).__name__}")
    if len(state["opt"]) != (2 if settings.optimizer == "muon" else 1):
        raise ValueError(f"{path} was trained with another --optimizer")
    for part in ("model", "ema"):
        check_header(path, shapes(settings.config), parts=(part,))
    if isinstance(state.get("args"), Mapping):
        settings.check_same(state["args"], path)


def resume(path: str, model: DiT, ema: DiT, opts: Sequence[torch.optim.Optimizer]) -> int:
    """Take over a checkpoint that `check_resumed` found good, and return its step."""
    state = load_checkpoint(path)
    for network, part in ((model, "model"), (ema, "ema")):
        check_tensors(state[part], path)
        load_into(network, state[part], path)
    for opt, saved in zip(opts, state["opt"], strict=True):
        opt.load_state_dict(saved)
    return state["step"]


class Log:
    """`log.jsonl`: mean losses since the last line. A resumed run drops the lines that a killed one wrote after its checkpoint."""

    def __init__(self, path: Path, step: int, images_per_step: int) -> None:
        self.path, self.step, self.images_per_step, self.started = path, step, images_per_step, time.monotonic()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [f"{line}\n" for number, line in enumerate(lines, 1) if line.endswith("}") and self._step_of(line, number) <= step]
        with atomic_path(path) as part:
            part.write_text("".join(kept), encoding="utf-8")

    def _step_of(self, line: str, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{self.path} is damaged, line {number} is no line of a log with its step: remove it") from error

    def write(self, step: int, sums: torch.Tensor) -> None:
        """sums: (2,) loss and mse, added up over processes and the steps since the last line."""
        steps, seconds = step - self.step, time.monotonic() - self.started
        loss, mse = (sums / steps).tolist()
        line = json.dumps(dict(step=step, loss=loss, mse=mse, images_per_second=steps * self.images_per_step / seconds))
        announce(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.step, self.started = step, time.monotonic()
