"""Redux: a picture as tokens that stand beside the text's."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


class ReduxAdapter(nn.Module):
    """Tokens of a vision encoder (B, M, redux_dim) to tokens of the text (B, M, txt_in_features)."""

    def __init__(self, redux_dim: int = 1152, txt_in_features: int = 4096) -> None:
        super().__init__()
        self.redux_up = nn.Linear(redux_dim, txt_in_features * 3)
        self.redux_down = nn.Linear(txt_in_features * 3, txt_in_features)

    def forward(self, x: Tensor) -> Tensor:
        return self.redux_down(F.silu(self.redux_up(x)))


class SiglipEncoder(nn.Module):
    """SigLIP's vision tower, from a folder or by its hub name. Raises OSError or ValueError if it cannot be loaded."""

    def __init__(self, source: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
        from transformers import SiglipImageProcessor, SiglipVisionModel

        super().__init__()
        self.processor = SiglipImageProcessor.from_pretrained(source)
        self.siglip = SiglipVisionModel.from_pretrained(source, dtype=dtype).eval().requires_grad_(False)

    @property
    def tokens(self) -> int:
        config = self.siglip.config
        return (config.image_size // config.patch_size) ** 2

    @torch.no_grad()
    def forward(self, picture: Image.Image) -> Tensor:
        """(1, M, D), the last hidden states."""
        pixels = self.processor(images=[picture], return_tensors="pt")["pixel_values"]
        return self.siglip(pixel_values=pixels.to(self.siglip.device, self.siglip.dtype)).last_hidden_state
