"""The text encoder of PixArt: T5 v1.1 XXL, 120 tokens of width 4096."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toca.loading.pretrained import (
    check_encoder,
    config_of,
    encode_padded,
    from_disk_or_hub,
    is_hub_name,
    load_encoder,
    load_tokenizer,
    tokenizer_folder,
)
from toca.loading.weights import identity, plain_reason

HUB = "DeepFloyd/t5-v1_1-xxl"  # the encoder alone
FOLDERS = ("t5-v1_1-xxl", "text_encoder", "")  # inside what --t5_path names: upstream's, diffusers', that folder itself
ADVICE = f"give --t5_path its folder, the one above it, or a hub name; `python tools/download.py --t5` fetches {HUB}"


class T5Embedder:
    """T5's encoder with its tokenizer, from a folder or by its hub name; the tokenizer may be in a folder beside it, as diffusers has it.

    precision: fp32 as published; bf16 takes half the memory; 8bit a quarter, on a GPU, through bitsandbytes.
    Raises ValueError that says where to get what is missing.
    """

    def __init__(self, source: str, device: torch.device, precision: str = "fp32", model_max_length: int = 120) -> None:
        from transformers import AutoTokenizer, T5EncoderModel

        options = _options(precision, device)
        try:
            self.tokenizer = load_tokenizer(AutoTokenizer, source)
            self.model = load_encoder(T5EncoderModel, source, **options)
        except (OSError, ValueError) as error:
            raise ValueError(f"no T5 encoder at {source}: {ADVICE} ({str(error).strip().splitlines()[0]})") from error
        if precision != "8bit":  # which bitsandbytes has put in its place
            self.model.to(device)
        self.model_max_length = model_max_length

    def tokens(self, text: str) -> int:
        """Of a text, before it is cut."""
        return len(self.tokenizer(text)["input_ids"])

    def get_text_embeddings(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) of cleaned texts, cut or padded to L tokens, and the mask (B, L), 1 for real tokens."""
        return encode_padded(self.tokenizer, self.model, texts, self.model_max_length)


def check_t5(source: str, device: torch.device, precision: str, width: int) -> None:
    """Make sure, without loading it, that there is a T5 whose features are `width` wide, and that this machine can run it.

    Of a hub name the configuration alone is looked at. Raises ValueError as `T5Embedder`.
    """
    _options(precision, device)
    try:
        if is_hub_name(source):
            from transformers import AutoConfig

            found = getattr(from_disk_or_hub(AutoConfig, source), "d_model", None)
        else:
            check_encoder(source, ("t5",))
            found = config_of(Path(source)).get("d_model")
    except Exception as error:
        raise ValueError(f"no T5 encoder at {source}: {ADVICE} ({plain_reason(error)})") from error
    if found != width:
        raise ValueError(f"{source} gives features of width {found}; the model reads {width}")


def t5_source(given: str | None, pretrained: Path) -> str:
    """The folder or hub name that `--t5_path` stands for: a folder that holds T5's in one of FOLDERS, or a name."""
    for name in FOLDERS:
        folder = Path(given or pretrained) / name
        if (folder / "config.json").is_file():
            return str(folder)
    return given or HUB


def encoder_identity(source: str, precision: str) -> str:
    """Tells encoders apart whose features differ: the content of a folder's files, or a hub name, and the precision."""
    try:
        tokenizer = tokenizer_folder(source)
    except ValueError:  # said when it is needed
        tokenizer = source
    return identity(*dict.fromkeys([str(source), str(tokenizer)]), more=[precision])


def _options(precision: str, device: torch.device) -> dict[str, Any]:
    """How transformers loads a precision. Raises ValueError if this machine cannot."""
    if precision != "8bit":
        return dict(dtype=torch.float32 if precision == "fp32" else torch.bfloat16)
    if device.type != "cuda":
        raise ValueError(f"--t5_precision 8bit runs on a GPU, not on {device}: use bf16")
    if missing := [package for package in ("bitsandbytes", "accelerate") if not find_spec(package)]:
        raise ValueError(f"--t5_precision 8bit needs `pip install {' '.join(missing)}`")
    from transformers import BitsAndBytesConfig

    return dict(quantization_config=BitsAndBytesConfig(load_in_8bit=True), device_map={"": device})
