"""Find checkpoints, open them without running code, and load them strictly."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def find(name: str, folder: Path, source: str, instead: str) -> Path:
    """The file `name` as a path, or inside `folder`. Raises FileNotFoundError that says where to get it, where to put it, and what else runs."""
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no checkpoint {name}: get it from {source}, and put it into {folder} or give its path; {instead}")


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch checkpoint, on the CPU; of a training checkpoint its `ema`, if it has one.

    Nothing in the file is executed: beside tensors and plain containers only an argparse namespace, as training scripts save it, is allowed.
    Raises ValueError on any other content.
    """
    if str(path).endswith(".safetensors"):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    state = load_checkpoint(path)
    for key in ("ema", "model"):
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if strange := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} holds no state dict: {_some(strange)} are not tensors")
    return dict(state)


def load_checkpoint(path: str | Path) -> Mapping:
    """A torch checkpoint as it was saved, without running any code of it. Raises ValueError if it is none, or wants to run some."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"{path} is refused: not a checkpoint of plain tensors ({str(error).splitlines()[0]})") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a mapping of names to tensors")
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; a model on the meta device takes over the tensors themselves.

    Raises ValueError that names every missing and unexpected key and every shape that differs.
    """
    own = model.state_dict()
    wrong = [f"{key} is {tuple(state[key].shape)}, wanted {tuple(own[key].shape)}" for key in own if key in state and state[key].shape != own[key].shape]
    problems = {"missing": [k for k in own if k not in state], "unexpected": [k for k in state if k not in own], "wrong shape": wrong}
    if any(problems.values()):
        raise ValueError(f"{source} does not fit the model: " + "; ".join(f"{name}: {_some(keys)}" for name, keys in problems.items() if keys))
    model.load_state_dict(dict(state), assign=any(p.is_meta for p in model.parameters()))


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
