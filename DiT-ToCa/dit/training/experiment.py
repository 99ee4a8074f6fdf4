"""A training run on disk: its folder, checkpoints and log."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from dit.model import DiT
from toca.loading.weights import load_checkpoint, load_into
from toca.runs.files import atomic_path


def experiment_folder(args: argparse.Namespace) -> Path:
    """<results>/<3-digit index>-<model>, a new one unless resuming."""
    if args.resume:
        return Path(args.resume).resolve().parents[1]
    taken = [int(m[1]) for p in Path(args.results_dir).glob("*") if (m := re.match(r"(\d{3})-", p.name))]
    return Path(args.results_dir) / f"{max(taken, default=-1) + 1:03d}-{args.model.replace('/', '-')}"


def save(folder: Path, step: int, model: DiT, ema: DiT, opts: Sequence[torch.optim.Optimizer], args: argparse.Namespace) -> None:
    """`checkpoints/<step>.pt` = {model, ema, opt, args, step}, all plain, and the EMA weights alone as safetensors."""
    state = dict(model=model.state_dict(), ema=ema.state_dict(), opt=[o.state_dict() for o in opts], args=vars(args), step=step)
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
        lines = path.read_text().splitlines() if path.exists() else []
        with atomic_path(path) as part:
            part.write_text("".join(f"{line}\n" for line in lines if line.endswith("}") and json.loads(line)["step"] <= step))

    def write(self, step: int, sums: torch.Tensor) -> None:
        """sums: (2,) loss and mse, added up over processes and the steps since the last line."""
        steps, seconds = step - self.step, time.monotonic() - self.started
        loss, mse = (sums / steps).tolist()
        line = json.dumps(dict(step=step, loss=loss, mse=mse, images_per_second=steps * self.images_per_step / seconds))
        print(line, flush=True)
        with open(self.path, "a") as file:
            file.write(line + "\n")
        self.step, self.started = step, time.monotonic()
