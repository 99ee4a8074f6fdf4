"""Weights in other layouts than the published one: diffusers', scaled fp8, a transformer inside an all-in-one file; adapters likewise.

Everything here works on tensors of the meta device too, so that a file's header can be checked before it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

State = dict[str, Tensor]
INSIDE = ("model.diffusion_model.", "diffusion_model.")  # before the transformer's names in files of all networks
SCALES = (".scale_weight", ".weight_scale")  # beside an fp8 weight: what it is to be multiplied with
MARKS = re.compile(r"(^|\.)(scaled_fp8|scale_input|input_scale)$")  # of fp8 products, which are not computed here

# ours -> diffusers', which are stacked along the outputs where there are several
ENDS = {
    "img_in": ("x_embedder",),
    "txt_in": ("context_embedder",),
    "final_layer.linear": ("proj_out",),
    "final_layer.adaLN_modulation.1": ("norm_out.linear",),
    **{
        f"{ours}.{layer}_layer": (f"time_text_embed.{theirs}.linear_{number}",)
        for ours, theirs in {"time_in": "timestep_embedder", "vector_in": "text_embedder", "guidance_in": "guidance_embedder"}.items()
        for layer, number in {"in": 1, "out": 2}.items()
    },
}
DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
}
DOUBLE_NORMS = {
    "img_attn.norm.query_norm": "attn.norm_q",
    "img_attn.norm.key_norm": "attn.norm_k",
    "txt_attn.norm.query_norm": "attn.norm_added_q",
    "txt_attn.norm.key_norm": "attn.norm_added_k",
}
SINGLE_NORMS = {"norm.query_norm": "attn.norm_q", "norm.key_norm": "attn.norm_k"}
SWAPPED = "final_layer.adaLN_modulation.1"  # shift and scale; scale and shift there


def linears(depth: int, depth_single_blocks: int) -> dict[str, tuple[str, ...]]:
    """Every linear of a transformer -> diffusers' names of its parts."""
    found = dict(ENDS)
    for ours, theirs, table, blocks in (
        ("double_blocks", "transformer_blocks", DOUBLE, depth),
        ("single_blocks", "single_transformer_blocks", SINGLE, depth_single_blocks),
    ):
        for i in range(blocks):
            found |= {f"{ours}.{i}.{name}": tuple(f"{theirs}.{i}.{part}" for part in parts) for name, parts in table.items()}
    return found


def depths(keys: Iterable[str]) -> tuple[int, int]:
    """Double and single blocks of a transformer in diffusers' layout."""
    found = [re.match(r"(single_)?transformer_blocks\.(\d+)\.", key) for key in keys]
    return tuple(1 + max((int(m[2]) for m in found if m and bool(m[1]) == single), default=-1) for single in (False, True))


def transformer(state: State) -> State:
    """A FLUX transformer in the published layout. Tensors of names that no layout has are left as they are."""
    for prefix in INSIDE:
        if any(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return _from_diffusers(state) if "x_embedder.weight" in state else state


def _from_diffusers(state: State) -> State:
    state, found = dict(state), {}
    double, single = depths(state)
    for ours, theirs in linears(double, single).items():
        for part in ("weight", "bias"):
            if all(f"{name}.{part}" in state for name in theirs):
                pieces = [state.pop(f"{name}.{part}") for name in theirs]
                whole = torch.cat(pieces) if len(pieces) > 1 else pieces[0]
                found[f"{ours}.{part}"] = torch.cat(whole.chunk(2)[::-1]) if ours == SWAPPED else whole
    for ours, theirs, table, blocks in (
        ("double_blocks", "transformer_blocks", DOUBLE_NORMS, double),
        ("single_blocks", "single_transformer_blocks", SINGLE_NORMS, single),
    ):
        for i in range(blocks):
            for name, part in table.items():
                if f"{theirs}.{i}.{part}.weight" in state:
                    found[f"{ours}.{i}.{name}.scale"] = state.pop(f"{theirs}.{i}.{part}.weight")
    return found | state


def dequantised(state: State, dtype: torch.dtype) -> State:
    """Weights of 8 bits times their scales, in `dtype`; other tensors as they are. Works in place, one tensor at a time.

    Raises ValueError on a scale that is neither one number nor one for every output.
    """
    for key in [key for key in state if MARKS.search(key)]:
        del state[key]
    for key in [key for key in state if key.endswith(SCALES)]:
        scale, name = state.pop(key).float(), f"{key.rsplit('.', 1)[0]}.weight"
        if name not in state:
            raise ValueError(f"{key} scales no weight that is there")
        weight = state[name]
        if scale.numel() not in (1, len(weight)):
            raise ValueError(f"{key} has {scale.numel()} numbers for a weight of {tuple(weight.shape)}: fp8 scaled by blocks is not read")
        state[name] = (weight.float() * scale.reshape(-1, *[1] * (weight.ndim - 1))).to(dtype)
    return state


# ---- the autoencoder ------------------------------------------------------------------------------------------------------------------


def autoencoder(state: State) -> State:
    """FLUX's autoencoder in the published layout, of diffusers' AutoencoderKL or of a file of all networks."""
    for prefix in ("first_stage_model.", "vae."):
        if any(key.startswith(f"{prefix}decoder.") for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    levels = 1 + max((int(m[1]) for key in state if (m := re.match(r"decoder\.up_blocks\.(\d+)\.", key))), default=-1)
    return {_published_name(key, levels): _convolution(key, value) for key, value in state.items()} if levels else state


AE_RULES = (  # diffusers' -> ours
    (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
    (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
    (r"\.up_blocks\.(\d+)\.resnets\.", r".up.\1.block."),
    (r"\.up_blocks\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
    (r"\.mid_block\.resnets\.0\.", ".mid.block_1."),
    (r"\.mid_block\.resnets\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.group_norm\.", ".mid.attn_1.norm."),
    (r"\.mid_block\.attentions\.0\.to_out\.0\.", ".mid.attn_1.proj_out."),
    (r"\.mid_block\.attentions\.0\.to_([qkv])\.", r".mid.attn_1.\1."),
    (r"\.conv_norm_out\.", ".norm_out."),
    (r"\.conv_shortcut\.", ".nin_shortcut."),
)


def _published_name(key: str, levels: int) -> str:
    for pattern, ours in AE_RULES:
        key = re.sub(pattern, ours, key)
    return re.sub(r"\.up\.(\d+)\.", lambda level: f".up.{levels - 1 - int(level[1])}.", key)  # counted from the other end


def _convolution(key: str, value: Tensor) -> Tensor:
    """Attention's linears are 1 x 1 convolutions here."""
    return value[..., None, None] if ".attentions.0.to_" in key and value.ndim == 2 else value


# ---- adapters -------------------------------------------------------------------------------------------------------------------------

PAIRS = (  # how the two factors end: down, up
    (".lora_A.weight", ".lora_B.weight"),
    (".lora_A.default.weight", ".lora_B.default.weight"),
    (".lora_down.weight", ".lora_up.weight"),
    (".lora.down.weight", ".lora.up.weight"),
)
BIASES = (".lora_B.bias", ".lora_B.default.bias")
BEFORE = ("base_model.model.", "transformer.", "diffusion_model.", "lora_unet_", "lora_transformer_")  # names of a transformer's linears
OF_TEXT = re.compile(r"^(lora_te\d*_|text_encoder(_\d)?\.|base_model\.model\.text_encoder)")  # an adapter of the text encoders


@dataclass(frozen=True)
class Place:
    """Where the factors of an adapter go: linear `name` of ours, the `part`-th of `parts` along its outputs, halves swapped or not."""

    name: str
    part: int = 0
    parts: int = 1
    swapped: bool = False


Factors = tuple[Tensor, Tensor]  # down (rank, inputs), up (outputs, rank)


def adapter(state: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], alpha: float | None = None) -> State:
    """An adapter in the published layout (`flux.modules.lora`), from that, PEFT's, diffusers' or kohya's.

    shapes: (outputs, inputs) of every linear of the model. alpha: of all linears for which the file has none; None: their ranks.
    Where one linear here is several there, their factors are joined, with zeros for those left out.
    Raises ValueError that says what is no adapter of this model.
    """
    places, found, used = _places(shapes), {}, set()
    factors: dict[str, dict[Place, Factors]] = {}
    for key in state:
        ends = next((pair for pair in PAIRS if key.endswith(pair[0])), None)
        if ends is None:
            continue
        stem = key.removesuffix(ends[0])
        if (place := places.get(_without(stem))) is None:
            raise ValueError(f"{key} is for no linear of this model")
        if (other := stem + ends[1]) not in state:
            raise ValueError(f"{key} has no {other} beside it")
        down, up = state[key], state[other]
        if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1]:
            raise ValueError(f"the factors at {stem} do not fit each other: {tuple(down.shape)} and {tuple(up.shape)}")
        scale = _number(state, f"{stem}.alpha", alpha, len(down)) / len(down)
        factors.setdefault(place.name, {})[place] = (down, _upper(up, scale, place))
        used |= {key, other, f"{stem}.alpha"}
        if (bias := next((stem + end for end in BIASES if stem + end in state), None)) and place.parts == 1:
            found[place.name + BIASES[0]] = _upper(state[bias], scale, place)
            used.add(bias)
    plain = {key: value for key, value in state.items() if key not in used}
    if not factors:
        raise ValueError("no LoRA in it: no names end in .lora_A.weight or .lora_down.weight")
    if strange := [key for key in plain if not key.endswith("_norm.scale")]:
        raise ValueError(f"{len(strange)} of its tensors are no part of a LoRA that is read here, first {strange[0]}")
    for name, pieces in factors.items():
        found[name + PAIRS[0][0]], found[name + PAIRS[0][1]] = _joined(name, pieces, *shapes[name])
    return found | plain


def _places(shapes: Mapping[str, Sequence[int]]) -> dict[str, Place]:
    """The linears of a model by every name that adapters have for them."""
    blocks = [{name.split(".")[1] for name in shapes if name.startswith(stack)} for stack in ("double_blocks.", "single_blocks.")]
    found = {}
    for ours, theirs in linears(*map(len, blocks)).items():
        if ours in shapes:
            found[ours] = Place(ours)
            found |= {name: Place(ours, part, len(theirs), ours == SWAPPED) for part, name in enumerate(theirs)}
    return found | {name.replace(".", "_"): place for name, place in found.items()}


def _without(stem: str) -> str:
    """A linear's name without what files put before it."""
    for prefix in BEFORE:
        stem = stem.removeprefix(prefix)
    return stem


def _number(state: Mapping[str, Tensor], key: str, given: float | None, otherwise: float) -> float:
    """alpha of a linear: in the file, beside it, or its rank."""
    if key in state and state[key].numel() != 1:
        raise ValueError(f"{key} must be one number, it is {tuple(state[key].shape)}")
    if key in state and not state[key].is_meta:
        return state[key].float().item()
    return otherwise if given is None else given


def _upper(up: Tensor, scale: float, place: Place) -> Tensor:
    """The upper factor, or its bias, times alpha / rank."""
    up = up if scale == 1 else (up.float() * scale).to(up.dtype)
    return torch.cat(up.chunk(2)[::-1]) if place.swapped else up


def _joined(name: str, pieces: Mapping[Place, Factors], outputs: int, inputs: int) -> Factors:
    """One adapter of a linear from those of its parts, which share no rank. Raises ValueError on shapes that do not fit the linear."""
    parts = {place.parts for place in pieces}
    if len(parts) > 1:
        raise ValueError(f"{name} is adapted as a whole and in parts")
    rows = {1: [outputs], 3: [inputs] * 3, 4: [inputs] * 3 + [outputs - 3 * inputs]}[parts.pop()]  # q, k, v and the MLP's
    ordered = sorted(pieces, key=lambda place: place.part)
    for place in ordered:
        down, up = pieces[place]
        if (len(up), down.shape[1]) != (rows[place.part], inputs):
            made, wanted = f"{down.shape[1]} inputs and {len(up)} outputs", f"{inputs} and {rows[place.part]}"
            raise ValueError(f"it does not fit the model at {name}: made for {made}, wanted {wanted}")
    if len(rows) == 1:
        return pieces[ordered[0]]
    downs, ups = zip(*(pieces[place] for place in ordered))
    whole, rank = ups[0].new_zeros(outputs, sum(map(len, downs))), 0
    for place, up in zip(ordered, ups):
        first = sum(rows[: place.part])
        whole[first : first + len(up), rank : rank + up.shape[1]] = up
        rank += up.shape[1]
    return torch.cat(downs), whole
