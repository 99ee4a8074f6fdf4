"""Find checkpoints, open them without running code, and load them strictly."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
import torch.nn as nn
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


def find(name: str, folder: Path, source: str, instead: str) -> Path:
    """The file `name` as a path, or inside `folder`.

    Raises FileNotFoundError that says where to get it (source), where to put it, and what else runs (instead).
    """
    for path in (Path(name), folder / name):
        if path.is_file():
            return path
    raise FileNotFoundError(f"no checkpoint {name}: get it from {source}, and put it into {folder} or give its path; {instead}")


def load_state_dict(path: str | Path, parts: Sequence[str] = ("ema", "model")) -> dict[str, Tensor]:
    """The tensors of a .safetensors or torch checkpoint, on the CPU; of a training checkpoint the first of `parts` that it has.

    Nothing in the file is executed: beside tensors and plain containers only an argparse namespace, as training scripts save it, may be
    there.
    Raises ValueError on any other content.
    """
    if str(path).endswith(".safetensors"):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file: {error}") from error
    state = load_checkpoint(path)
    for key in parts:
        if isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if strange := [str(key) for key, value in state.items() if not isinstance(value, Tensor)]:
        raise ValueError(f"{path} holds no state dict: {_some(strange)} are not tensors")
    return dict(state)


def load_checkpoint(path: str | Path) -> Mapping:
    """A torch checkpoint as it was saved, without running any code of it. Raises ValueError if it is none, or wants to run some."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # an unpickler that meets arbitrary bytes raises whatever they lead to
        reason = next((line for line in str(error).splitlines() if "GLOBAL" in line), str(error).strip().split("\n")[0]).strip()
        raise ValueError(f"{path} is refused: not a checkpoint of plain tensors ({type(error).__name__}: {reason})") from error
    if not isinstance(state, Mapping):
        raise ValueError(f"{path} holds a {type(state).__name__}, not a mapping of names to tensors")
    return state


def load_into(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load strictly; a model on the meta device takes over the tensors themselves.

    Raises ValueError that names every missing and unexpected key and every shape that differs.
    """
    own = model.state_dict()
    differing = [key for key in own if key in state and state[key].shape != own[key].shape]
    problems = {
        "missing": [key for key in own if key not in state],
        "unexpected": [key for key in state if key not in own],
        "wrong shape": [f"{key} is {tuple(state[key].shape)}, wanted {tuple(own[key].shape)}" for key in differing],
    }
    if any(problems.values()):
        what = "; ".join(f"{problem}: {_some(keys)}" for problem, keys in problems.items() if keys)
        raise ValueError(f"{source} does not fit the model: {what}")
    model.load_state_dict(dict(state), assign=any(p.is_meta for p in model.parameters()))


def fingerprint(path: str | Path, ends: int = 2**20) -> str:
    """A short hash of a file's size and its first and last bytes: tells two checkpoints apart without reading gigabytes."""
    size = Path(path).stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with open(path, "rb") as file:
        digest.update(file.read(ends))
        file.seek(max(0, size - ends))
        digest.update(file.read(ends))
    return digest.hexdigest()


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
