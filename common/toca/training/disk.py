"""A training run on disk: `checkpoints/<step>.pt`, the averaged weights beside them as safetensors, and `log.jsonl`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torch import Tensor

from toca.console import announce
from toca.loading.weights import load_checkpoint, load_into
from toca.runs.files import atomic_path

Optimisers = Sequence[torch.optim.Optimizer]


def newest(folder: Path) -> Path:
    """The last checkpoint of a run. Raises ValueError if it has none."""
    if found := sorted((folder / "checkpoints").glob("[0-9]*.pt")):
        return found[-1]
    raise ValueError(f"{folder} holds no checkpoint to go on from")


def save(folder: Path, step: int, model: nn.Module, ema: nn.Module, opts: Optimisers, note: Mapping[str, Any], keep: int) -> Path:
    """Write {model, ema, opt, step, note}, all plain, and the averaged weights alone; remove all but the last `keep` of both."""
    state = dict(model=model.state_dict(), ema=ema.state_dict(), opt=[o.state_dict() for o in opts], step=step, note=dict(note))
    path = folder / "checkpoints" / f"{step:07d}.pt"
    with atomic_path(path.with_suffix(".safetensors")) as part:
        save_file({name: value.clone() for name, value in ema.state_dict().items()}, part)  # clones: encoders tie weights
    with atomic_path(path) as part:
        torch.save(state, part)
    for old in sorted(path.parent.glob("[0-9]*.pt"))[:-keep]:
        old.unlink()
        old.with_suffix(".safetensors").unlink(missing_ok=True)
    return path


def resume(path: Path, model: nn.Module, ema: nn.Module, opts: Optimisers) -> int:
    """Load a checkpoint and return its step. Raises ValueError if it is none, or of another model or other optimisers."""
    state = load_checkpoint(path)
    if lacking := [key for key in ("model", "ema", "opt", "step") if key not in state]:
        raise ValueError(f"{path} cannot be resumed, it lacks {', '.join(lacking)}; --init starts a new run from its weights")
    load_into(model, state["model"], str(path))
    load_into(ema, state["ema"], str(path))
    if len(opts) != len(state["opt"]):
        raise ValueError(f"{path} was trained with other optimisers")
    for opt, saved in zip(opts, state["opt"], strict=True):
        opt.load_state_dict(saved)
    return state["step"]


def warm_start(model: nn.Module, state: Mapping[str, Tensor]) -> str:
    """Take every tensor whose name and shape fit, and say in words how many: blocks outlive a change of the patch size."""
    own = model.state_dict()
    fitting = {name: value for name, value in state.items() if name in own and value.shape == own[name].shape}
    model.load_state_dict(own | fitting)
    return f"{len(fitting)} of {len(own)} tensors"


class Log:
    """`log.jsonl`: mean loss since the last line. A resumed run drops the lines that a killed one wrote after its checkpoint."""

    def __init__(self, path: Path, step: int, items_per_step: int) -> None:
        self.path, self.step, self.items_per_step, self.started = path, step, items_per_step, time.monotonic()
        lines = path.read_text().splitlines() if path.exists() else []
        with atomic_path(path) as part:
            part.write_text("".join(f"{line}\n" for line in lines if line.endswith("}") and json.loads(line)["step"] <= step))

    def write(self, step: int, loss: Tensor, lr: float) -> None:
        """loss: the sum over the steps since the last line."""
        steps, seconds = step - self.step, time.monotonic() - self.started
        rate = steps * self.items_per_step / seconds
        line = json.dumps(dict(step=step, loss=round(loss.item() / steps, 5), lr=round(lr, 7), images_per_second=round(rate, 2)))
        announce(line)
        with open(self.path, "a") as file:
            file.write(line + "\n")
        self.step, self.started = step, time.monotonic()
