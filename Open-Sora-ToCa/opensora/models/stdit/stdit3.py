"""STDiT3, the video transformer of Open-Sora 1.2: spatial and temporal blocks in turns, with one engine call per sub-layer.

Parameter names are those of the official checkpoints. Without a cache (`NO_CACHE`, the default) this is the plain model.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from einops import rearrange
from torch import Tensor

from opensora.models.layers.blocks import (
    Attention,
    CaptionEmbedder,
    Mlp,
    MultiHeadCrossAttention,
    PatchEmbed3D,
    PositionEmbedding2D,
    RotaryEmbedding,
    SizeEmbedder,
    T2IFinalLayer,
    TimestepEmbedder,
    gated,
    get_layernorm,
    t2i_modulate,
)
from opensora.registry import MODELS
from opensora.spec import STDiT3Config
from opensora.weights import COMPUTED, FREQUENCIES, NULL, checkpoint_path, stdit3_config
from toca.engine.cache import NO_CACHE, LayerCache, RunCache, UncachedLayer
from toca.engine.token_shards import WHOLE, Whole
from toca.loading.weights import load_into, load_state_dict

__all__ = ["STDiT3", "STDiT3Block", "STDiT3Config", "STDiT3_3B_2", "STDiT3_XL_2"]


class STDiT3Block(nn.Module):
    """Self-attention (within frames, or along time), cross-attention to the text, and an MLP."""

    uncached = UncachedLayer("attn", "cross_attn", "mlp")

    def __init__(self, hidden_size: int, num_heads: int, mlp_ratio: float = 4.0, qk_norm: bool = True) -> None:
        super().__init__()
        self.norm1 = get_layernorm(hidden_size)
        self.attn = Attention(hidden_size, num_heads, qk_norm)
        self.cross_attn = MultiHeadCrossAttention(hidden_size, num_heads)
        self.norm2 = get_layernorm(hidden_size)
        self.mlp = Mlp(hidden_size, int(hidden_size * mlp_ratio))
        self.scale_shift_table = nn.Parameter(torch.randn(6, hidden_size) / hidden_size**0.5)

    def forward(
        self,
        x: Tensor,
        text: Tensor,
        text_mask: Tensor,
        t: Tensor,
        frames: int,
        frame: Tensor | None = None,
        rope: Tensor | None = None,
        cache: LayerCache = uncached,
        shards: Whole = WHOLE,
    ) -> Tensor:
        """x (B, N, C), text (B, L, C) and text_mask (B, L) -> the next x.

        t: (B, F, 6, C), the modulation that all layers share, F = 1 or one for every frame; then frame (B, N, 1) says where a token is.
        rope: rotations (T, d / 2) make it a temporal block. shards: where the tokens of frames live.
        """
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = (self.scale_shift_table + t).unbind(2)  # (B, F, C)
        per_token = () if frame is None else (frame,)

        def attn(x: Tensor) -> Tensor:
            return self.attn(t2i_modulate(self.norm1(x), shift_msa, scale_msa), frames, rope, cache, shards)

        def cross_attn(x: Tensor) -> Tensor:
            return self.cross_attn(x, cache.once("text", lambda: self.cross_attn.keys_values(text)), text_mask, cache)

        def mlp(x: Tensor, *frame: Tensor) -> Tensor:
            shift, scale = (chunk.take_along_dim(*frame, dim=1) if frame else chunk for chunk in (shift_mlp, scale_mlp))
            return self.mlp(t2i_modulate(self.norm2(x), shift, scale))

        x = gated(x, gate_msa, cache.attn(attn, x))
        x = x + cache.cross_attn(cross_attn, x)
        return gated(x, gate_mlp, cache.mlp(mlp, x, *per_token, score_input=lambda: t2i_modulate(self.norm2(x), shift_mlp, scale_mlp)))


class STDiT3(nn.Module):
    """A spatial-temporal diffusion transformer over video latents.

    A cached run is a `Cache` on `opensora_spec(model.config, latent, text_tokens)`, passed to every call. What no step changes (embedded
    text, its keys and values, fps) is computed at the first call and kept: a cache belongs to one set of y, mask and fps.
    """

    def __init__(self, config: STDiT3Config) -> None:
        super().__init__()
        self.config = config
        self.in_channels, self.out_channels = config.in_channels, config.out_channels
        width, heads, patch = config.hidden_size, config.num_heads, math.prod(config.patch_size)
        self.pos_embed = PositionEmbedding2D(width)
        self.rope = RotaryEmbedding(config.head_dim)
        self.x_embedder = PatchEmbed3D(config.patch_size, config.in_channels, width)
        self.t_embedder = TimestepEmbedder(width)
        self.fps_embedder = SizeEmbedder(width)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.y_embedder = CaptionEmbedder(config.caption_channels, width, config.model_max_length)
        for stack in ("spatial_blocks", "temporal_blocks"):
            blocks = (STDiT3Block(width, heads, config.mlp_ratio, config.qk_norm) for _ in range(config.depth))
            setattr(self, stack, nn.ModuleList(blocks))
        self.final_layer = T2IFinalLayer(width, patch, config.out_channels)

    def get_dynamic_size(self, x: Tensor) -> tuple[int, int, int]:
        """Tokens (frames, rows, columns) of latents (B, C, T, H, W)."""
        return self.config.grid(tuple(x.shape[2:]))

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        y: Tensor,
        mask: Tensor | None = None,
        x_mask: Tensor | None = None,
        fps: Tensor | None = None,
        height: Tensor | None = None,
        width: Tensor | None = None,
        cache: RunCache = NO_CACHE,
        shards: Whole = WHOLE,
        **ignored: Any,
    ) -> Tensor:
        """Predict (B, out_channels, T, H, W), velocity first, in float32.

        x: latents (B, in_channels, T, H, W), under guidance all prompts and then all null captions. timestep: (B,), 0 to 1000, in float32
        whatever the model's dtype. y: text states (B, 1, M, caption_channels). mask: (n, M), 1 at the text's tokens, n dividing B: each
        half of the batch gets it. x_mask: (B, T), False where a frame is given. fps, height, width (pixels): one for each of n prompts.
        shards: where the tokens of frames live (`shard_tokens`), if several processes share a video; all get the same arguments, and the
        whole result. A cache has the same shards.
        Raises ValueError if fps, height or width is missing, or a text is empty.
        """
        if fps is None or height is None or width is None:
            raise ValueError("fps, height and width of the video are needed")
        latent, (frames, rows, columns) = x.shape[2:], self.get_dynamic_size(x)
        x = shards.split(self.embed(x.to(self.x_embedder.proj.weight.dtype), height, width))
        fps = cache.once("fps", lambda: self.fps_embedder(fps, len(x)))
        text = cache.once("text", lambda: self.y_embedder(text_rows(y, mask)[0].to(x.dtype)))
        text_mask = cache.once("text_mask", lambda: text_rows(y, mask)[1])
        t, frame = (self.t_embedder(timestep) + fps)[:, None], None  # (B, F, C), F = 1 or all frames
        if x_mask is not None:
            given = (self.t_embedder(torch.zeros_like(timestep)) + fps)[:, None]
            frame = torch.arange(frames, device=x.device).repeat_interleave(x.shape[1] // frames).expand(len(x), -1)[..., None]
        t6 = self.t_block(t)
        if x_mask is not None:
            t, t6 = (torch.where(x_mask.bool()[..., None], *pair) for pair in ((t, given), (t6, self.t_block(given))))
        t6 = t6.unflatten(-1, (6, -1))
        rope = self.rope(frames)
        cache.step(x)
        stacks = (cache.walk(name, getattr(self, name)) for name in ("spatial_blocks", "temporal_blocks"))
        for (spatial, spatial_cache), (temporal, temporal_cache) in zip(*stacks, strict=True):  # in turns
            x = spatial(x, text, text_mask, t6, frames, frame, cache=spatial_cache, shards=shards)
            x = temporal(x, text, text_mask, t6, frames, frame, rope, cache=temporal_cache, shards=shards)
        x = shards.join(self.final_layer(cache.hidden(x), t))
        return self.unpatchify(x, (frames, rows, columns), latent).float()

    def embed(self, x: Tensor, height: Tensor, width: Tensor) -> Tensor:
        """Latents (B, in_channels, T, H, W) to tokens (B, N, C) with their places in a frame of the first prompt's size in pixels."""
        _, rows, columns = self.get_dynamic_size(x)
        height, width = (torch.as_tensor(size, dtype=torch.float32, device=x.device).flatten()[0] for size in (height, width))
        scale = (height * width).sqrt() / self.config.input_sq_size
        places = self.pos_embed(rows, columns, scale, round((rows * columns) ** 0.5))
        x = self.x_embedder(x)
        return (x.unflatten(1, (-1, rows * columns)) + places.to(x.dtype)).flatten(1, 2)

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int], latent: torch.Size) -> Tensor:
        """(B, N, patch * channels), channel fastest -> (B, channels, T, H, W), without the padding of the ends."""
        (frames, rows, columns), (pt, ph, pw) = grid, self.config.patch_size
        sizes = dict(T=frames, H=rows, W=columns, pt=pt, ph=ph, pw=pw)
        x = rearrange(x, "B (T H W) (pt ph pw C) -> B C (T pt) (H ph) (W pw)", **sizes)
        return x[:, :, : latent[0], : latent[1], : latent[2]]


def text_rows(y: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The text alone: states (B, L, c) of y (B, 1, M, c), tokens of the mask (n, M) first, and a mask (B, L); L is the longest text.

    Raises ValueError if a text has no token.
    """
    y = y.squeeze(1)
    if mask is None:
        return y, torch.ones(y.shape[:2], dtype=torch.bool, device=y.device)
    mask = mask.bool().to(y.device).repeat(len(y) // len(mask), 1)
    lengths = mask.sum(dim=1)
    if not lengths.all():
        raise ValueError("every text needs at least one token")
    order = mask.int().argsort(dim=1, descending=True, stable=True)[:, : int(lengths.max())]
    return y.take_along_dim(order[..., None], dim=1), mask.take_along_dim(order, dim=1)


def load_stdit3(config: STDiT3Config, path: Path) -> STDiT3:
    """A model with the weights of a folder or file, strictly, but for rotary frequencies and tables of positions, which are computed.

    A null caption of another length is cut, or its last row repeated. Raises FileNotFoundError or ValueError on what does not fit.
    """
    with torch.device("meta"):
        model = STDiT3(config)
    state = {key: value for key, value in load_state_dict(path).items() if key not in COMPUTED}
    state.setdefault(FREQUENCIES, RotaryEmbedding(config.head_dim).freqs)
    if (null := state.get(NULL)) is not None:
        rows = torch.arange(config.model_max_length).clamp_max(len(null) - 1)
        state[NULL] = null[rows]
    load_into(model, state, str(path))
    return model


def _constructor(name: str):
    def build(from_pretrained: str | None = None, **overrides: Any) -> STDiT3:
        """from_pretrained: a folder with config.json and safetensors, one file, or a name on the hub; random weights without.
        overrides: of the configuration. Raises FileNotFoundError or ValueError on a checkpoint or setting that does not fit."""
        path = checkpoint_path(from_pretrained) if from_pretrained else None
        config = stdit3_config(name, path, overrides)
        return load_stdit3(config, path) if path else STDiT3(config)

    return MODELS.register_module(name)(build)


STDiT3_XL_2 = _constructor("STDiT3-XL/2")
STDiT3_3B_2 = _constructor("STDiT3-3B/2")
