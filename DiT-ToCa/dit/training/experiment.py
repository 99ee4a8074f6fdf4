"""A training run on disk: its folder, checkpoints and log."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from dit.model import DiT
from dit.training.flags import TrainSettings
from toca.console import announce
from toca.loading.weights import load_checkpoint, load_into
from toca.runs.files import atomic_path


def experiment_folder(settings: TrainSettings) -> Path:
    """<results>/<3-digit index>-<model>, a new one unless resuming."""
    if settings.resume:
        return Path(settings.resume).resolve().parents[1]
    taken = [int(m[1]) for p in Path(settings.results_dir).glob("*") if (m := re.match(r"(\d{3})-", p.name))]
    return Path(settings.results_dir) / f"{max(taken, default=-1) + 1:03d}-{settings.model.replace('/', '-')}"


def save(folder: Path, step: int, model: DiT, ema: DiT, opts: Sequence[torch.optim.Optimizer], settings: TrainSettings) -> None:
    """`checkpoints/<step>.pt` = {model, ema, opt, args, step}, all plain, and the EMA weights alone as safetensors."""
    state = dict(model=model.state_dict(), ema=ema.state_dict(), opt=[o.state_dict() for o in opts], args=settings.noted(), step=step)
    path = folder / "checkpoints" / f"{step:07d}.pt"
    with atomic_path(path.with_suffix(".safetensors")) as part:
        save_file({k: v.contiguous() for k, v in ema.state_dict().items()}, part)
    with atomic_path(path) as part:
        torch.save(state, part)


def resume(path: str, model: DiT, ema: DiT, opts: Sequence[torch.optim.Optimizer]) -> int:
    """Load a checkpoint of this program and return its step. Raises ValueError if it is none, or of another model or optimiser."""
    state = load_checkpoint(path)
    if lacking := [key for key in ("model", "ema", "opt", "step") if key not in state]:
        raise ValueError(f"{path} cannot be resumed, it lacks {', '.join(lacking)}; --init starts a new run from its weights")
    load_into(model, state["model"], path)
    load_into(ema, state["ema"], path)
    if len(opts) != len(state["opt"]):
        raise ValueError(f"{path} was trained with another --optimizer")
    for opt, saved in zip(opts, state["opt"], strict=True):
        opt.load_state_dict(saved)
    return state["step"]


class Log:
    """`log.jsonl`: mean losses since the last line. A resumed run drops the lines that a killed one wrote after its checkpoint."""

    def __init__(self, path: Path, step: int, images_per_step: int) -> None:
        self.path, self.step, self.images_per_step, self.started = path, step, images_per_step, time.monotonic()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        kept = [f"{line}\n" for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        with atomic_path(path) as part:
            part.write_text("".join(kept), encoding="utf-8")

    def write(self, step: int, sums: torch.Tensor) -> None:
        """sums: (2,) loss and mse, added up over processes and the steps since the last line."""
        steps, seconds = step - self.step, time.monotonic() - self.started
        loss, mse = (sums / steps).tolist()
        line = json.dumps(dict(step=step, loss=loss, mse=mse, images_per_second=steps * self.images_per_step / seconds))
        announce(line)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(line + "\n")
        self.step, self.started = step, time.monotonic()
