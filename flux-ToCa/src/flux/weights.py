"""Loading the networks of a named model straight to a device and dtype."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from flux.files import AE, CLIP, CONFIGS, T5, Source
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from flux.modules.conditioner import CLIP_LENGTH, HFEmbedder
from flux.modules.lora import adapter_rank, merge, replace_linear_with_lora, with_adapter
from flux.spec import LORA_RANK
from toca.loading.weights import load_into, load_state_dict

AE_PARAMS = AutoEncoderParams()


def read(path: Path, source: Source, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """The tensors of a file, each moved to `device` and `dtype` as it is read: never two copies of the file in memory.

    Raises ValueError if the file is damaged, saying where to get it again.
    """
    try:
        state = load_state_dict(path)
    except ValueError as error:
        raise ValueError(f"{error}; {source.advice()}") from error
    return {key: state.pop(key).to(device, dtype) for key in list(state)}


def load_flow_model(
    name: str,
    device: torch.device | str = "cuda",
    dtype: torch.dtype = torch.bfloat16,
    ckpt: str | None = None,
    *,
    lora: str | None = None,
    lora_scale: float = 1.0,
    keep_lora: bool = False,
) -> Flux:
    """The model of a name with its checkpoint, and with its adapter merged into it, or beside it with `keep_lora`.

    ckpt, lora: a file, a folder that holds it, or a hub name; default: environment, `checkpoints/`, hub. Loading is strict, but for the
    input channels that a LoRA adds (zeros). Raises FileNotFoundError or ValueError that says where to get what is missing or damaged.
    """
    config, device = CONFIGS[name], torch.device(device)
    path = config.flow.find(ckpt)
    state = read(path, config.flow, device, dtype)
    with torch.device("meta"):
        model = Flux(config.params)
    if config.lora:
        adapter_path = config.lora.find(lora)
        try:
            adapter = read(adapter_path, config.lora, device, dtype)
            rank = adapter_rank(adapter)
            if keep_lora:
                replace_linear_with_lora(model, min(rank, LORA_RANK), lora_scale)
                state = with_adapter(state, adapter)
            else:
                merge(state, adapter, lora_scale)
        except ValueError as error:
            raise ValueError(f"{adapter_path}: {error}") from error
    load_checked(model, state, path, config.flow)
    return model.requires_grad_(False).eval()


def load_ae(
    device: torch.device | str = "cuda",
    ckpt: str | None = None,
    *,
    sample_z: bool = False,
    params: AutoEncoderParams | None = None,
) -> AutoEncoder:
    """The autoencoder in float32. Raises as `load_flow_model`."""
    path = AE.find(ckpt)
    state = read(path, AE, torch.device(device), torch.float32)
    with torch.device("meta"):
        ae = AutoEncoder(params or AE_PARAMS, sample_z)
    load_checked(ae, state, path, AE)
    return ae.requires_grad_(False).eval()


def load_checked(model: torch.nn.Module, state: dict[str, Tensor], path: Path, source: Source) -> None:
    """Load strictly into a model on the meta device. Raises ValueError that names what differs and where the right file is."""
    try:
        load_into(model, state, str(path))
    except ValueError as error:
        raise ValueError(f"{error}; {source.advice()}") from error


def load_t5(
    device: torch.device | str, max_length: int = 512, source: str | None = None, dtype: torch.dtype = torch.bfloat16
) -> HFEmbedder:
    """The encoder of txt. Raises ValueError that says where to get it."""
    return _embedder(T5, source, max_length, dtype, is_clip=False).to(device)


def load_clip(device: torch.device | str, source: str | None = None, dtype: torch.dtype = torch.bfloat16) -> HFEmbedder:
    """The encoder of y. Raises ValueError that says where to get it."""
    return _embedder(CLIP, source, CLIP_LENGTH, dtype, is_clip=True).to(device)


def _embedder(where: Source, given: str | None, max_length: int, dtype: torch.dtype, is_clip: bool) -> HFEmbedder:
    source, kind = where.folder(given), "CLIP" if is_clip else "T5"
    try:
        embedder = HFEmbedder(source, max_length, dtype)
    except (OSError, ValueError) as error:
        raise ValueError(f"no {kind} encoder at {source}: {where.advice()} ({str(error).strip().splitlines()[0]})") from error
    if embedder.is_clip != is_clip:
        raise ValueError(f"{source} is no {kind} encoder: {where.flag} wants one, see its config.json")
    return embedder
