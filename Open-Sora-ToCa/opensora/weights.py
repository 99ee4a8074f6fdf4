"""Checkpoints by path or by hub name: a folder with config.json and weights, or one file; found and checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from opensora.registry import MODELS, check_module
from opensora.spec import CONFIGS, STDiT3Config
from toca.loading.pretrained import config_of, is_hub_name
from toca.loading.weights import check_header, identity, load_into, load_state_dict, shapes_of, weight_files

COMPUTED = ("pos_embed", "pos_embed_temporal")  # may be in a file, and are computed
FREQUENCIES, NULL = "rope.freqs", "y_embedder.y_embedding"  # may be missing; may have another number of rows


def checkpoint_path(name: str, local_files_only: bool = False) -> Path:
    """A folder or file on this machine as it is, a hub name as the folder that it is fetched to.

    Raises FileNotFoundError that says what would do.
    """
    path = Path(name).expanduser()
    if path.is_dir() or path.is_file():
        return path
    if not is_hub_name(name) or path.suffix in (".safetensors", ".pt", ".pth", ".bin"):
        raise FileNotFoundError(f"there is no checkpoint {name}: give a folder with config.json and weights, a file, or a hub name")
    return _fetch(name, local_files_only)


def _fetch(name: str, local_files_only: bool) -> Path:
    """From the hub's cache on this machine, else from the hub."""
    from huggingface_hub import snapshot_download

    wanted = ["config.json", "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
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


def read_config(path: Path) -> dict[str, Any]:
    """config.json of a folder; empty for a file. Raises ValueError if a folder has none, or it is no JSON object."""
    if path.is_file():
        return {}
    return config_of(path)


def load_weights(module: nn.Module, path: Path) -> None:
    """Load strictly. Raises ValueError that names what does not fit, OSError if there is nothing."""
    load_into(module, load_state_dict(path), str(path))


# ---- before anything is loaded ---------------------------------------------------------------------------------------------------------


def stdit3_config(name: str, path: Path | None, overrides: Mapping[str, Any]) -> STDiT3Config:
    """A named model's configuration, with what a checkpoint says of itself and what is to win over it. Raises ValueError."""
    values = {**asdict(CONFIGS[name]), **(read_config(path) if path else {})}
    try:
        config = STDiT3Config.from_dict(values)
    except ValueError as error:
        raise ValueError(f"{path}/config.json: {error}") from error
    return STDiT3Config.from_dict({**values, **overrides}) if overrides else config


def check_stdit3(config: STDiT3Config, path: Path) -> None:
    """Make sure that a checkpoint's names and shapes are those of an STDiT3, as `load_stdit3` takes them. Raises ValueError."""
    from opensora.models.stdit.stdit3 import STDiT3

    found = shapes_of(path)
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in STDiT3(config).state_dict().items()}
    if FREQUENCIES not in found:
        del expected[FREQUENCIES]
    if NULL in found:
        expected[NULL] = (*found[NULL][:1], *expected[NULL][1:])
    check_header(path, expected, ignored=COMPUTED)


def check_parts(parts: Mapping[str, Mapping[str, Any]]) -> tuple[STDiT3Config, dict[str, str]]:
    """Make sure that the networks of a configuration are known and their weights there and of their kind.

    Returns the transformer's configuration, and which weights they are.
    Raises ValueError on an unknown type or setting and on weights that do not fit, FileNotFoundError if there are none.
    """
    from opensora.models.text_encoder.t5 import check_t5
    from opensora.models.vae.vae import meta_vae

    paths: dict[str, Path] = {}
    for name, flag in (("model", " (--ckpt-path)"), ("vae", ""), ("text_encoder", "")):
        check_module(parts[name], MODELS)
        source = parts[name].get("from_pretrained")
        if not isinstance(source, str) or not source:
            raise ValueError(f"{name} has no from_pretrained{flag}: give a folder, a file or a hub name")
        if name == "text_encoder":
            check_t5(source, parts[name].get("dtype", "fp32"))
        else:
            paths[name] = checkpoint_path(source)
            weight_files(paths[name])
    overrides = {key: value for key, value in parts["model"].items() if key not in ("type", "from_pretrained")}
    config = stdit3_config(parts["model"]["type"], paths["model"], overrides)
    if (tokens := parts["text_encoder"].get("model_max_length", 300)) > config.model_max_length:
        raise ValueError(f"text_encoder.model_max_length is {tokens}, the transformer's null caption has {config.model_max_length} tokens")
    check_stdit3(config, paths["model"])
    check_header(paths["vae"], {key: value.shape for key, value in meta_vae(paths["vae"]).state_dict().items()})
    encoder = Path(parts["text_encoder"]["from_pretrained"])
    return config, {name: identity(path) for name, path in (*paths.items(), ("text_encoder", encoder))}
