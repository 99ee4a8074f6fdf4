"""Text encoders of transformers, from a folder or by a hub name, whole or not at all. transformers is imported when one is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from safetensors import SafetensorError


def from_disk_or_hub(cls: type, source: str | Path, **options: Any) -> Any:
    """cls.from_pretrained; what is on this machine needs no network, and no wait for one that is down.

    Raises OSError if there is nothing of that name.
    """
    try:
        return cls.from_pretrained(source, local_files_only=True, **options)
    except OSError:
        if Path(source).exists() or str(source).count("/") != 1:  # no hub name
            raise
    return cls.from_pretrained(source, **options)


def load_encoder(cls: type, source: str | Path, dtype: torch.dtype) -> nn.Module:
    """A model of transformers for inference. Raises ValueError if its weights are damaged or lack tensors, OSError if there are none."""
    try:
        model, info = from_disk_or_hub(cls, source, dtype=dtype, output_loading_info=True)
    except SafetensorError as error:
        raise ValueError(f"the weights in {source} are damaged: {error}") from error
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{source} lacks {len(missing)} tensors of its {model.config.model_type} text encoder, first {missing[0]}")
    return model.eval().requires_grad_(False)
