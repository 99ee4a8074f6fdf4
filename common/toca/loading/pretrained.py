"""Networks of transformers and diffusers, from a folder or by their hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from toca.console import announce


def from_disk_or_hub(cls: type, source: str | Path, **options: Any) -> Any:
    """cls.from_pretrained(source): what is on this machine needs no network, and no wait for one that is down.

    Raises OSError or ValueError if there is nothing of that kind.
    """
    try:
        return cls.from_pretrained(source, local_files_only=True, **options)
    except OSError:
        if Path(source).exists() or str(source).count("/") != 1:  # no hub name
            raise
    announce(f"fetching {source} from the hub")
    return cls.from_pretrained(source, **options)


def load_encoder(cls: type, source: str | Path, **options: Any) -> Any:
    """A model of transformers, in evaluation mode and without gradients, made sure to be complete.

    Raises ValueError if the weights are damaged or lack tensors, OSError if there are none.
    """
    try:
        model, info = from_disk_or_hub(cls, source, output_loading_info=True, **options)
    except SafetensorError as error:
        raise ValueError(f"the weights in {source} are damaged: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{source} lacks {len(missing)} tensors of its {model.config.model_type} text encoder, first {missing[0]}")
    return model.eval().requires_grad_(False)


@torch.no_grad()
def encode_padded(tokenizer: Any, encoder: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor]:
    """Last hidden states (B, length, D) of texts, cut or padded to `length` tokens, and the mask (B, length), 1 for real tokens."""
    tokens = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt").to(encoder.device)
    states = encoder(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
    return states, tokens["attention_mask"]
