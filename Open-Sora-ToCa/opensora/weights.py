"""Checkpoints by path or by hub name: a folder with config.json and safetensors, or one file; found before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch.nn as nn
from torch import Tensor

from opensora.registry import MODELS, check_module
from toca.loading.weights import fingerprint, load_into, load_state_dict

WEIGHTS = "model.safetensors"
FILES = (".safetensors", ".pt", ".pth", ".bin")


def checkpoint_path(name: str, local_files_only: bool = False) -> Path:
    """A folder or file on this machine as it is, a hub name as the folder that it is fetched to.

    Raises FileNotFoundError that says what would do.
    """
    path = Path(name).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix in FILES):
        return path
    if path.exists():
        raise FileNotFoundError(f"{name} is no checkpoint: expected a folder with {WEIGHTS}, or a file ending in {', '.join(FILES)}")
    if path.suffix in FILES or name.count("/") != 1 or name.startswith(("/", ".", "~")):
        raise FileNotFoundError(f"there is no checkpoint {name}: give a folder with config.json and {WEIGHTS}, a file, or a hub name")
    return _fetch(name, local_files_only)


def _fetch(name: str, local_files_only: bool) -> Path:
    """From the hub's cache on this machine, else from the hub."""
    from huggingface_hub import snapshot_download

    wanted = ["config.json", WEIGHTS, f"{WEIGHTS}.index.json", "model-*.safetensors"]
    try:
        try:
            folder = Path(snapshot_download(name, allow_patterns=wanted, local_files_only=True))
            weight_files(folder)
            return folder
        except FileNotFoundError:
            if local_files_only:
                raise
            return Path(snapshot_download(name, allow_patterns=wanted))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"no checkpoint {name} on this machine, and none could be fetched from the hub: {reason}") from error


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's tensors. Raises FileNotFoundError if a folder holds none, or not all."""
    if path.is_file():
        return [path]
    index = path / f"{WEIGHTS}.index.json"
    names = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.is_file() else [WEIGHTS]
    if missing := [name for name in names if not (path / name).is_file()]:
        raise FileNotFoundError(f"{path} lacks {', '.join(missing)}")
    return [path / name for name in names]


def read_config(path: Path) -> dict:
    """config.json of a folder; empty for a file. Raises ValueError if a folder has none, or it is not JSON."""
    if path.is_file():
        return {}
    try:
        return json.loads((path / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} has no readable config.json: {error}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a folder or file, without running any code in it. Raises ValueError or OSError on anything else."""
    return {key: value for file in weight_files(path) for key, value in load_state_dict(file).items()}


def load_weights(module: nn.Module, path: Path, ignored: Collection[str] = ()) -> None:
    """Load strictly, but for keys that may be there and mean nothing. Raises ValueError that names what does not fit."""
    load_into(module, {key: value for key, value in read_weights(path).items() if key not in ignored}, str(path))


def check_parts(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make sure that the networks of a configuration are known and their weights there. Returns which weights they are.

    Raises ValueError on an unknown type or setting, FileNotFoundError if weights are missing.
    """
    weights = {}
    for name, flag in (("model", " (--ckpt-path)"), ("vae", ""), ("text_encoder", "")):
        check_module(parts[name], MODELS)
        source = parts[name].get("from_pretrained")
        if not source:
            raise ValueError(f"{name} has no from_pretrained{flag}: give a folder, a file or a hub name")
        if name != "text_encoder":
            file = weight_files(checkpoint_path(source))[0]
            weights[name] = dict(name=Path(source).name, fingerprint=fingerprint(file))
    return weights
