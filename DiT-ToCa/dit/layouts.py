"""The names and shapes in a DiT's checkpoint, and diffusers' names for them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dit.spec import DiTConfig

POSITIONS, LABELS = "pos_embed", "y_embedder.embedding_table.weight"

MODULES = {  # ours -> diffusers', each with a weight and a bias
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
BLOCK_MODULES = {  # of blocks.i -> of transformer_blocks.i; several names: equal parts of ours, in this order
    "attn.qkv": ("attn1.to_q", "attn1.to_k", "attn1.to_v"),
    "attn.proj": ("attn1.to_out.0",),
    "mlp.fc1": ("ff.net.0.proj",),
    "mlp.fc2": ("ff.net.2",),
    "adaLN_modulation.1": ("norm1.linear",),
}
REPEATED = {  # ours -> of norm1.emb of every block of diffusers', all the same
    "t_embedder.mlp.0.weight": "timestep_embedder.linear_1.weight",
    "t_embedder.mlp.0.bias": "timestep_embedder.linear_1.bias",
    "t_embedder.mlp.2.weight": "timestep_embedder.linear_2.weight",
    "t_embedder.mlp.2.bias": "timestep_embedder.linear_2.bias",
    LABELS: "class_embedder.embedding_table.weight",
}


def shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """What a checkpoint of a model holds, in its published layout."""
    width, patch, hidden = config.hidden_size, config.patch_size, int(config.hidden_size * config.mlp_ratio)
    linears = {"t_embedder.mlp.0": (256, width), "t_embedder.mlp.2": (width, width)}
    linears |= {"final_layer.linear": (width, patch * patch * config.out_channels), "final_layer.adaLN_modulation.1": (width, 2 * width)}
    block = {"attn.qkv": (width, 3 * width), "attn.proj": (width, width), "mlp.fc1": (width, hidden), "mlp.fc2": (hidden, width)}
    block["adaLN_modulation.1"] = (width, 6 * width)
    linears |= {f"blocks.{layer}.{name}": size for layer in range(config.depth) for name, size in block.items()}
    found: dict[str, tuple[int, ...]] = {POSITIONS: (1, config.num_tokens, width)}
    found["x_embedder.proj.weight"], found["x_embedder.proj.bias"] = (width, config.in_channels, patch, patch), (width,)
    found[LABELS] = (config.num_classes + (config.class_dropout_prob > 0), width)
    for name, (inputs, outputs) in linears.items():
        found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs), (outputs,)
    return found


def of_diffusers(keys: Mapping[str, object]) -> bool:
    """Whether these are names of diffusers' DiTTransformer2DModel."""
    return "transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight" in keys


def diffusers_names(depth: int) -> dict[str, tuple[str, ...]]:
    """Our names -> diffusers', whose tensors lie one after the other in ours, or are all the same (REPEATED)."""
    pairs = {ours: (theirs,) for ours, theirs in MODULES.items()}
    for layer in range(depth):
        block = f"transformer_blocks.{layer}."
        pairs |= {f"blocks.{layer}.{ours}": tuple(block + name for name in theirs) for ours, theirs in BLOCK_MODULES.items()}
    names = {f"{ours}.{kind}": tuple(f"{name}.{kind}" for name in theirs) for ours, theirs in pairs.items() for kind in ("weight", "bias")}
    return names | {ours: tuple(f"transformer_blocks.{i}.norm1.emb.{theirs}" for i in range(depth)) for ours, theirs in REPEATED.items()}


def diffusers_shapes(config: DiTConfig) -> dict[str, tuple[int, ...]]:
    """What diffusers' checkpoint of a model holds."""
    ours, found = shapes(config), {}
    for name, theirs in diffusers_names(config.depth).items():
        parts = 1 if name in REPEATED else len(theirs)
        found |= {key: (ours[name][0] // parts, *ours[name][1:]) for key in theirs}
    return found


def from_diffusers(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Our tensors, but for the position table, which diffusers computes. Raises ValueError if its blocks' embedders differ."""
    found, depth = {}, len({key.split(".")[1] for key in state if key.startswith("transformer_blocks.")})
    for name, theirs in diffusers_names(depth).items():
        tensors = [state[key] for key in theirs if key in state]
        if name not in REPEATED:
            found[name] = torch.cat(tensors)
        elif all(torch.equal(tensor, tensors[0]) for tensor in tensors):
            found[name] = tensors[0]
        else:
            raise ValueError(f"{source}: blocks have a {REPEATED[name]} each of their own, a DiT has one for all")
    return found
