"""Loading the networks of a named model straight to a device and dtype, after a look at all files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from torch import Tensor

from flux import layouts
from flux.files import AE, CLIP, CONFIGS, T5, Source
from flux.flags import RunSettings
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from flux.modules.conditioner import CLIP_LENGTH, CLIP_TYPES, HFEmbedder
from flux.modules.lora import adapter_rank, merge, replace_linear_with_lora, widened, with_adapter
from flux.spec import LORA_RANK
from toca.console import announce
from toca.loading.pretrained import check_encoder, from_disk_or_hub, is_hub_name
from toca.loading.weights import fingerprint, load_into, load_state_dict, plain_reason, shapes_of, weight_files

AE_PARAMS = AutoEncoderParams()
State = dict[str, Tensor]
Reader = Callable[[Path], State]


# ---- reading ----------------------------------------------------------------------------------------------------------------------------


def reader(device: torch.device, dtype: torch.dtype) -> Reader:
    """Reads a file's tensors, each moved to `device` and `dtype` as it is read: never two copies of the file in memory."""

    def read(path: Path) -> State:
        state = layouts.dequantised(load_state_dict(path), dtype)
        return {key: state.pop(key).to(device, dtype) for key in list(state)}

    return read


def header(path: Path) -> State:
    """A file's names and shapes, as tensors of the meta device."""
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes_of(path).items()}
    return layouts.dequantised(state, torch.float32)


# ---- the networks -----------------------------------------------------------------------------------------------------------------------


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
    """The model of a name with its checkpoint, and with an adapter merged into it, or beside it with `keep_lora`.

    ckpt, lora: a file, a folder that holds it, or a hub name; default: environment, `checkpoints/`, hub. Checkpoints and adapters of
    other layouts (`flux.layouts`) are converted. Loading is strict, but for the input channels that a LoRA adds (zeros).
    Raises FileNotFoundError or ValueError that says where to get what is missing or damaged.
    """
    config = CONFIGS[name]
    adapter = config.adapter.find(lora) if lora or config.lora else None
    read = reader(torch.device(device), dtype)
    return flow_model(name, config.flow.find(ckpt), adapter, lora_scale, keep_lora, read).requires_grad_(False).eval()


def flow_model(name: str, path: Path, adapter_path: Path | None, lora_scale: float, keep_lora: bool, read: Reader) -> Flux:
    """The model from what `read` makes of its files: from `header`, one of the meta device, which shows whether they fit."""
    config = CONFIGS[name]
    with torch.device("meta"):
        model = Flux(config.params)
    with blaming(path, config.flow):
        state = layouts.transformer(read(path))
    if adapter_path is None:
        with blaming(path, config.flow):
            load_into(model, state, str(path))
        return model
    with blaming(adapter_path, config.adapter):
        shapes = {key.removesuffix(".weight"): value.shape for key, value in model.state_dict().items() if value.ndim == 2}
        adapter = layouts.adapter(_of_the_transformer(read(adapter_path), adapter_path), shapes, alpha_beside(adapter_path))
        if strange := [key for key in adapter if "lora_" not in key and key not in model.state_dict()]:
            raise ValueError(f"{strange[0]} is no tensor of the model")
    with blaming(path, config.flow):
        state = widened(state, adapter)
        load_into(model, {key: value.to("meta") for key, value in state.items()}, str(path))
    with blaming(adapter_path, config.adapter):
        if keep_lora:
            replace_linear_with_lora(model, min(adapter_rank(adapter), LORA_RANK), lora_scale)
            state = with_adapter(state, adapter)
        else:
            merge(state, adapter, lora_scale)
        load_into(model, state, str(adapter_path))
    return model


def _of_the_transformer(adapter: State, path: Path) -> State:
    """An adapter without what is for text encoders, which are used as they are."""
    kept = {key: value for key, value in adapter.items() if not layouts.OF_TEXT.match(key)}
    if kept and len(kept) < len(adapter) and not next(iter(kept.values())).is_meta:
        announce(f"{path}: its {len(adapter) - len(kept)} tensors for text encoders are left out")
    return kept


def alpha_beside(path: Path) -> float | None:
    """alpha of a PEFT adapter, from the adapter_config.json beside it. Raises ValueError if that asks for what is not done here."""
    config = (path if path.is_dir() else path.parent) / "adapter_config.json"
    if not config.is_file():
        return None
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
        alpha = float(settings["lora_alpha"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{config} cannot be read: lora_alpha ({error})") from error
    if wanted := [key for key in ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern") if settings.get(key)]:
        raise ValueError(f"{config} asks for {wanted[0]}, which is not read here")
    return alpha


def load_ae(
    device: torch.device | str = "cuda",
    ckpt: str | None = None,
    *,
    sample_z: bool = False,
    params: AutoEncoderParams | None = None,
) -> AutoEncoder:
    """The autoencoder in float32. Raises as `load_flow_model`."""
    return autoencoder(AE.find(ckpt), reader(torch.device(device), torch.float32), sample_z, params).requires_grad_(False).eval()


def autoencoder(path: Path, read: Reader, sample_z: bool = False, params: AutoEncoderParams | None = None) -> AutoEncoder:
    """The autoencoder from what `read` makes of its file."""
    with torch.device("meta"):
        ae = AutoEncoder(params or AE_PARAMS, sample_z)
    with blaming(path, AE):
        load_into(ae, layouts.autoencoder(read(path)), str(path))
    return ae


@contextmanager
def blaming(path: Path, source: Source) -> Iterator[None]:
    """Errors of the block say which file is meant, and where to get the right one."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        text = str(error) if str(path) in str(error) else f"{path}: {error}"
        raise ValueError(f"{text}; {source.advice()}") from error


# ---- text encoders ----------------------------------------------------------------------------------------------------------------------


def load_t5(
    device: torch.device | str, max_length: int = 512, source: str | None = None, dtype: torch.dtype = torch.bfloat16
) -> HFEmbedder:
    """The encoder of txt. Raises ValueError that says where to get it."""
    return _embedder(T5, source, max_length, dtype, is_clip=False).to(device)


def load_clip(device: torch.device | str, source: str | None = None, dtype: torch.dtype = torch.bfloat16) -> HFEmbedder:
    """The encoder of y. Raises ValueError that says where to get it."""
    return _embedder(CLIP, source, CLIP_LENGTH, dtype, is_clip=True).to(device)


def _embedder(where: Source, given: str | None, max_length: int, dtype: torch.dtype, is_clip: bool) -> HFEmbedder:
    source = where.folder(given)
    check_embedder(where, source, is_clip)
    try:
        return HFEmbedder(source, max_length, dtype)
    except (OSError, ValueError) as error:
        raise ValueError(f"no {_kind(is_clip)} encoder at {source}: {where.advice()} ({plain_reason(error)})") from error


def check_embedder(where: Source, source: str, is_clip: bool) -> None:
    """Make sure that an encoder is there in full, with its tokenizer: a folder is looked through; of one on the hub its configuration."""
    try:
        if is_hub_name(source):
            from transformers import AutoConfig

            kind = from_disk_or_hub(AutoConfig, source).model_type
        else:
            check_encoder(source, (*CLIP_TYPES, "t5"))
            kind = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError) as error:
        raise ValueError(f"no {_kind(is_clip)} encoder at {source}: {where.advice()} ({plain_reason(error)})") from error
    if (kind in CLIP_TYPES) != is_clip or kind not in (*CLIP_TYPES, "t5"):
        raise ValueError(f"{source} is no {_kind(is_clip)} encoder: {where.flag} wants one, its config.json says {kind!r}")


def _kind(is_clip: bool) -> str:
    return "CLIP" if is_clip else "T5"


# ---- a look at all files ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Files:
    """Where the weights of a run are. Encoders: folders, or names on the hub.

    lora: None without one.
    """

    settings: RunSettings
    flow: Path
    lora: Path | None
    ae: Path
    t5: str
    clip: str

    @classmethod
    def find(cls, settings: RunSettings) -> Files:
        """Raises FileNotFoundError that says what is lacking and where to get it."""
        config, given = CONFIGS[settings.name], settings.files
        lora = config.adapter.find(given["lora"]) if settings.has_lora else None
        return cls(
            settings, config.flow.find(given["ckpt"]), lora, AE.find(given["ae"]), T5.folder(given["t5"]), CLIP.folder(given["clip"])
        )

    def check(self) -> None:
        """Make sure, by headers and configurations, that all networks will load. Raises ValueError that names the file."""
        s = self.settings
        flow_model(s.name, self.flow, self.lora, s.lora_scale, s.keep_lora, header)
        autoencoder(self.ae, header)
        check_embedder(T5, self.t5, is_clip=False)
        check_embedder(CLIP, self.clip, is_clip=True)

    def fingerprints(self) -> dict[str, Any]:
        """Tells the weights from others, wherever they are."""
        found = dict(checkpoint=dict(name=self.flow.name, fingerprint=_prints(self.flow)), ae=_prints(self.ae))
        if self.lora:
            s = self.settings
            found["lora"] = dict(fingerprint=_prints(self.lora), alpha=alpha_beside(self.lora), scale=s.lora_scale, keep=s.keep_lora)
        return found | dict(t5=_encoder_prints(self.t5), clip=_encoder_prints(self.clip))


def _prints(path: Path) -> str | list[str]:
    prints = [fingerprint(file) for file in weight_files(path)]
    return prints[0] if len(prints) == 1 else prints


def _encoder_prints(source: str) -> str | list[str]:
    """Fingerprints of an encoder's files, in a folder or the hub's cache; its name where it is not on this machine yet."""
    config = Path(source) / "config.json"
    if not config.is_file():
        try:
            config = Path(try_to_load_from_cache(source, "config.json") or config)
        except HFValidationError:  # no hub name either: loading says so
            return source
    if not config.is_file():
        return source
    return [fingerprint(path) for path in sorted(config.parent.iterdir()) if path.suffix in (".json", ".safetensors", ".bin", ".model")]
