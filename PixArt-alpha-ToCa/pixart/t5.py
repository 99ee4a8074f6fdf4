"""The text encoder of PixArt: T5 v1.1 XXL, 120 tokens of width 4096."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toca.loading.pretrained import encode_padded, from_disk_or_hub, load_encoder
from toca.loading.weights import fingerprint

HUB = "DeepFloyd/t5-v1_1-xxl"  # the encoder alone
WEIGHTS = ("*.safetensors", "*.bin", "*.json", "*.model")  # files of a folder that decide the features


class T5Embedder:
    """T5's encoder with its tokenizer, from a folder or by its hub name.

    precision: fp32 as published; bf16 takes half the memory; 8bit a quarter, on a GPU, through bitsandbytes.
    Raises ValueError that says where to get what is missing.
    """

    def __init__(self, source: str, device: torch.device, precision: str = "fp32", model_max_length: int = 120) -> None:
        from transformers import AutoTokenizer, T5EncoderModel

        advice = f"give --t5_path its folder, the one above it, or a hub name; `python tools/download.py --t5` fetches {HUB}"
        options = _options(precision, device)
        try:
            self.tokenizer = from_disk_or_hub(AutoTokenizer, source)
            self.model = load_encoder(T5EncoderModel, source, **options)
        except (OSError, ValueError) as error:
            raise ValueError(f"no T5 encoder at {source}: {advice} ({str(error).strip().splitlines()[0]})") from error
        if precision != "8bit":  # which bitsandbytes has put in its place
            self.model.to(device)
        self.model_max_length = model_max_length

    @property
    def width(self) -> int:
        return self.model.config.d_model

    def get_text_embeddings(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (B, L, D) of cleaned texts, cut or padded to L tokens, and the mask (B, L), 1 for real tokens."""
        return encode_padded(self.tokenizer, self.model, texts, self.model_max_length)


def t5_source(given: str | None, pretrained: Path) -> str:
    """The folder or hub name that `--t5_path` stands for: a folder that holds t5-v1_1-xxl, that folder itself, or a name."""
    for folder in (Path(given or pretrained) / "t5-v1_1-xxl", Path(given or pretrained)):
        if (folder / "config.json").is_file():
            return str(folder)
    return given or HUB


def encoder_identity(source: str, precision: str) -> str:
    """Tells encoders apart whose features differ: the content of a folder's files, or a hub name, and the precision."""
    folder = Path(source)
    files = sorted(file for pattern in WEIGHTS for file in folder.glob(pattern)) if folder.is_dir() else []
    content = [f"{file.name} {fingerprint(file)}" for file in files] or [source]
    return hashlib.blake2b("\n".join([*content, precision]).encode(), digest_size=8).hexdigest()


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
