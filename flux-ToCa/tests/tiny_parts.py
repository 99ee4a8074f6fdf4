"""Tiny random components of FLUX in the layout of the real ones: safetensors files, T5 and CLIP folders with their tokenizers."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn as nn
from safetensors.torch import save_file

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder, AutoEncoderParams
from flux.modules.lora import replace_linear_with_lora
from flux.spec import FluxParams

TINY_AE = AutoEncoderParams(ch=32, ch_mult=(1, 1, 1, 1), num_res_blocks=1, z_channels=16)
T5_WIDTH, CLIP_WIDTH = 40, 24
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def randomize(module: nn.Module, seed: int = 0) -> nn.Module:
    """Make every parameter matter."""
    generator = torch.Generator().manual_seed(seed)
    for p in module.parameters():
        scale = 0.6 * p[0].numel() ** -0.5 if p.ndim > 1 else 0.1
        p.data = (p.ndim == 1) * p.data + scale * torch.randn(p.shape, generator=generator)
    return module.requires_grad_(False).eval()


def save_module(module: nn.Module, path: Path) -> Path:
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path


def save_ae(path: Path, params: AutoEncoderParams = TINY_AE) -> Path:
    return save_module(randomize(AutoEncoder(params)), path)


def save_t5(folder: Path) -> Path:
    """A two-layer T5 whose tokenizer knows letters and a space."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *(("\u2581" + x, -2.0) for x in LETTERS), *((x, -3.0) for x in LETTERS)]
    T5Tokenizer(vocab=vocab, extra_ids=0).save_pretrained(folder)
    torch.manual_seed(0)
    config = T5Config(vocab_size=64, d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu")
    T5EncoderModel(config).save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A two-layer CLIP text encoder whose tokenizer knows letters."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    pieces = [*LETTERS, *(x + "</w>" for x in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    CLIPTokenizer(vocab=vocab, merges=[]).save_pretrained(folder)
    torch.manual_seed(0)
    ends = dict(bos_token_id=vocab["<|startoftext|>"], eos_token_id=vocab["<|endoftext|>"], pad_token_id=vocab["<|endoftext|>"])
    config = CLIPTextConfig(
        vocab_size=len(vocab), hidden_size=CLIP_WIDTH, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, **ends
    )
    CLIPTextModel(config).save_pretrained(folder)
    return folder


TINY_FLUX = FluxParams(
    vec_in_dim=CLIP_WIDTH, context_in_dim=T5_WIDTH, hidden_size=32, num_heads=2, depth=2, depth_single_blocks=3, axes_dim=(4, 6, 6)
)


def save_flux(path: Path, params: FluxParams = TINY_FLUX, seed: int = 0) -> Path:
    return save_module(randomize(Flux(params), seed), path)


def save_adapter(path: Path, params: FluxParams, max_rank: int = 4, seed: int = 1) -> Path:
    """An adapter for a model of `params`, in the published layout."""
    model = Flux(params)
    replace_linear_with_lora(model, max_rank)
    state = randomize(model, seed).state_dict()
    save_file({key: value.contiguous() for key, value in state.items() if "lora_" in key or "_norm.scale" in key}, path)
    return path
