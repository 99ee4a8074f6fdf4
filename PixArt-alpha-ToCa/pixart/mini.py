"""pixart-mini: a small PixArt on 32 x 32 pixels that draws what captions of `toca.shapeworld` say, with a tiny T5 of its own.

No autoencoder: the latents are the pixels, 3 channels, in [-1, 1]. What PixArt's sampler takes for a picture of 256 x 256 pixels with
latents of an eighth is here a picture of 32 x 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import save_file
from torch import Tensor

from pixart.model import PixArt
from pixart.spec import PixArtConfig
from pixart.t5 import T5Embedder
from toca.loading.weights import load_into, load_state_dict
from toca.runs.files import atomic_path
from toca.training.world import CHANNELS, SIZE, T5_WIDTH, TEXT_TOKENS, padded, t5_encoder, t5_tokenizer

WEIGHTS, T5 = "pixart-mini.safetensors", "t5-v1_1-xxl"  # in a folder
CONFIG = PixArtConfig(
    input_size=SIZE,
    in_channels=CHANNELS,
    hidden_size=128,
    depth=6,
    num_heads=4,
    caption_channels=T5_WIDTH,
    model_max_length=TEXT_TOKENS,
)


class Mini(nn.Module):
    """What is trained: the transformer and, along with it, its text encoder."""

    def __init__(self, patch: int = CONFIG.patch_size) -> None:
        super().__init__()
        self.tokenizer = t5_tokenizer()
        self.t5 = t5_encoder(self.tokenizer)
        self.pixart = initialised(PixArt(CONFIG.replace(patch_size=patch, lewei_scale=2 / patch)))

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        """Tokens (B, TEXT_TOKENS)."""
        return padded(self.tokenizer, captions)

    def hidden_matrices(self) -> list[nn.Parameter]:
        """The weights Muon is made for: attention and MLP linears of the transformer's blocks."""
        return [p for name, p in self.pixart.blocks.named_parameters() if p.ndim == 2 and "table" not in name]

    def forward(self, x: Tensor, t: Tensor, tokens: Tensor, left_out: Tensor) -> Tensor:
        """Noise and variance (B, 6, H, W) of x (B, 3, H, W) at timesteps (B,) in 0..999 under captions (B, TEXT_TOKENS).

        left_out (B,) bool: pictures that see the features of no text instead, as guidance does.
        """
        mask = tokens != self.tokenizer.pad_token_id
        y = self.t5(input_ids=tokens, attention_mask=mask.long()).last_hidden_state
        y = torch.where(left_out[:, None, None], self.pixart.y_embedder.y_embedding.to(y.dtype), y)
        return self.pixart(x, t, y, mask)


def initialised(model: PixArt) -> PixArt:
    """Weights to train from, as published: gates, cross-attention's output and the last layer begin as zero."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            if name == "final_layer.linear" or name.endswith("cross_attn.proj"):
                nn.init.zeros_(module.weight)
            if name.startswith(("t_embedder", "t_block", "y_embedder")):
                nn.init.normal_(module.weight, std=0.02)
    return model


def save(model: Mini, folder: Path, dtype: torch.dtype = torch.float16) -> Path:
    """A folder as PixArt's programs read it: the transformer in the published layout, T5 with its tokenizer."""
    with atomic_path(folder / WEIGHTS) as part:
        state = model.pixart.state_dict()
        save_file({name: value.to(dtype).contiguous() for name, value in state.items() if name != "pos_embed"}, part)  # which is computed
    model.tokenizer.save_pretrained(folder / T5)
    model.t5.to(dtype).save_pretrained(folder / T5)
    model.t5.float()
    return folder


def load(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> tuple[PixArt, T5Embedder]:
    """Transformer and T5 of a folder, strictly. Raises ValueError or OSError if it lacks something."""
    model = PixArt(CONFIG)
    state = {name: value.to(dtype) for name, value in load_state_dict(folder / WEIGHTS).items()}
    load_into(model, state | {"pos_embed": model.pos_embed}, str(folder / WEIGHTS))
    t5 = T5Embedder(str(folder / T5), torch.device(device), "fp32", TEXT_TOKENS)
    return model.to(device, dtype).requires_grad_(False).eval(), t5
