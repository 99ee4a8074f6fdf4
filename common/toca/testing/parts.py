"""Tiny components with random weights, in the folders that transformers and diffusers lay out."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import save_file

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Make every parameter matter, and freeze them."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        scale = 0.6 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
        p.data = (p.ndim == 1) * p.data + scale * torch.randn(p.shape, generator=generator)
    return module.requires_grad_(False).eval()


def save_module(module: nn.Module, path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path


def save_t5(folder: Path, width: int) -> str:
    """A two-layer T5 whose tokenizer knows letters and a space."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("\u2581" + x, -2.0) for x in LETTERS), *((x, -3.0) for x in LETTERS)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    T5EncoderModel(config).save_pretrained(folder)
    return str(folder)


def save_clip(folder: Path, width: int) -> str:
    """A two-layer CLIP text encoder whose tokenizer knows letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    pieces = [*LETTERS, *(x + "</w>" for x in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    ends = dict(bos_token_id=vocab["<|startoftext|>"], eos_token_id=vocab["<|endoftext|>"], pad_token_id=vocab["<|endoftext|>"])
    sizes = dict(hidden_size=width, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
    CLIPTextModel(CLIPTextConfig(vocab_size=len(vocab), **sizes, **ends)).save_pretrained(folder)
    return str(folder)


def save_vae(folder: Path, blocks: int = 4) -> str:
    """An AutoencoderKL of 4 latent channels and stride 2^(blocks - 1)."""
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    kinds = dict(down_block_types=["DownEncoderBlock2D"] * blocks, up_block_types=["UpDecoderBlock2D"] * blocks)
    AutoencoderKL(**kinds, block_out_channels=[4] * blocks, norm_num_groups=2, latent_channels=4).save_pretrained(folder)
    return str(folder)
