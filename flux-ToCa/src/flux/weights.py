"""The named models, where their files are, and loading them straight to a device and dtype."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flux.files import Source
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from flux.modules.conditioner import CLIP_LENGTH, HFEmbedder
from flux.modules.lora import adapter_rank, merge, replace_linear_with_lora, with_adapter
from flux.spec import CONFIGS as PARAMS
from flux.spec import LORA_RANK, FluxParams, txt_tokens
from toca.loading.weights import load_into, load_state_dict

HUB = "black-forest-labs/FLUX.1-"


@dataclass(frozen=True)
class Config:
    """A named model: its network, its files, and what its commands use when nothing else is said."""

    params: FluxParams
    flow: Source
    lora: Source | None = None
    num_steps: int = 50
    guidance: float = 3.5
    t5_length: int = 512  # text tokens

    @property
    def shifted(self) -> bool:
        """Whether the schedule depends on the size of the picture: for all models but the distilled one."""
        return self.params.guidance_embed


def _flow(repo: str, file: str, *variables: str) -> Source:
    return Source(f"{HUB}{repo}", f"{file}.safetensors", (*variables, "FLUX_MODEL"), "--ckpt")


DEV = _flow("dev", "flux1-dev", "FLUX_DEV")


def _lora(kind: str) -> Source:
    repo, file = f"{HUB}{kind.capitalize()}-dev-lora", f"flux1-{kind}-dev-lora.safetensors"
    return Source(repo, file, (f"FLUX_DEV_{kind.upper()}_LORA", "FLUX_LORA"), "--lora")


SCHNELL = _flow("schnell", "flux1-schnell", "FLUX_SCHNELL")
KREA = _flow("Krea-dev", "flux1-krea-dev", "FLUX_DEV_KREA")
FILL = _flow("Fill-dev", "flux1-fill-dev", "FLUX_DEV_FILL")
CANNY = _flow("Canny-dev", "flux1-canny-dev", "FLUX_DEV_CANNY")
DEPTH = _flow("Depth-dev", "flux1-depth-dev", "FLUX_DEV_DEPTH")


def _config(name: str, flow: Source, lora: Source | None = None, **defaults: float) -> Config:
    return Config(PARAMS[name], flow, lora, t5_length=txt_tokens(name), **defaults)


CONFIGS: dict[str, Config] = {
    "flux-dev": _config("flux-dev", DEV),
    "flux-schnell": _config("flux-schnell", SCHNELL, num_steps=4),
    "flux-dev-krea": _config("flux-dev-krea", KREA),
    "flux-dev-fill": _config("flux-dev-fill", FILL, guidance=30.0),
    "flux-dev-canny": _config("flux-dev-canny", CANNY, guidance=30.0),
    "flux-dev-depth": _config("flux-dev-depth", DEPTH, guidance=10.0),
    "flux-dev-canny-lora": _config("flux-dev-canny-lora", DEV, _lora("canny"), guidance=30.0),
    "flux-dev-depth-lora": _config("flux-dev-depth-lora", DEV, _lora("depth"), guidance=10.0),
}
AE = Source(f"{HUB}schnell", "ae.safetensors", ("AE", "FLUX_AE"), "--ae")
AE_PARAMS = AutoEncoderParams()
T5 = Source("google/t5-v1_1-xxl", None, ("FLUX_T5",), "--t5")
REDUX = Source(f"{HUB}Redux-dev", "flux1-redux-dev.safetensors", ("FLUX_REDUX",), "--redux")
SIGLIP = Source("google/siglip-so400m-patch14-384", None, ("FLUX_SIGLIP",), "--siglip")
CLIP = Source("openai/clip-vit-large-patch14", None, ("FLUX_CLIP",), "--clip")


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
