"""What a file of weights is, told by the names in it: so that an error can say what was given instead of listing a thousand keys."""

from __future__ import annotations

import re
from collections.abc import Iterable

LAYOUTS: tuple[tuple[str, tuple[str, ...]], ...] = (  # what it is, and patterns of which each is in some key; the first that fits
    ("weights quantised by bitsandbytes", (r"\.quant_state\.bitsandbytes|\.weight\.absmax$|\.SCB$",)),
    ("a LoRA in kohya's layout", (r"^lora_(unet|te\d?|transformer)_.*\.lora_(down|up)\.",)),
    ("a LoRA in XLabs' layout", (r"\.processor\.\w*lora\d?\.(down|up)\.",)),
    ("a LoRA in PEFT's layout", (r"^base_model\.model\..*\.lora_[AB]\.",)),
    ("a LoRA in diffusers' layout", (r"^(transformer|unet|text_encoder\w*)\..*(\.lora_[AB]\.|\.lora\.(down|up)\.|_lora\.(down|up)\.)",)),
    ("a LoRA in FLUX's layout", (r"^(double|single)_blocks\..*\.lora_[AB]\.",)),
    ("a LoRA", (r"\.lora_(A|B|down|up)\.",)),
    ("scaled fp8 weights", (r"(^|\.)scaled_fp8$|\.(scale_weight|weight_scale|scale_input|input_scale)$",)),
    (
        "an all-in-one checkpoint with text encoders and VAE",
        (r"^model\.diffusion_model\.", r"^(first_stage_model|cond_stage_model|vae|text_enc)"),
    ),
    (
        "a FLUX transformer in diffusers' layout",
        (r"^transformer_blocks\.\d+\.attn\.add_q_proj\.", r"^single_transformer_blocks\.\d+\.proj_mlp\."),
    ),
    ("a DiT in diffusers' layout", (r"^transformer_blocks\.0\.norm1\.emb\.class_embedder\.",)),
    ("a PixArt transformer in diffusers' layout", (r"^adaln_single\.linear\.", r"^caption_projection\.", r"^transformer_blocks\.")),
    ("another transformer in diffusers' layout", (r"^transformer_blocks\.\d+\.",)),
    ("a UNet in diffusers' layout", (r"^down_blocks\.\d+\.", r"^time_embedding\.")),
    ("an AutoencoderKL in diffusers' layout", (r"^decoder\.up_blocks\.\d+\.resnets\.",)),
    ("an autoencoder in the layout of FLUX and latent diffusion", (r"^(first_stage_model\.)?decoder\.up\.\d+\.block\.",)),
    (
        "a FLUX transformer in its published layout",
        (r"^(model\.)?(diffusion_model\.)?double_blocks\.\d+\.img_attn\.", r"single_blocks\.\d+\.linear1\."),
    ),
    ("an Open-Sora transformer (STDiT3)", (r"^spatial_blocks\.\d+\.", r"^temporal_blocks\.\d+\.")),
    ("a PixArt transformer in its published layout", (r"^t_block\.1\.", r"^blocks\.\d+\.cross_attn\.")),
    ("a DiT in its published layout", (r"^blocks\.\d+\.adaLN_modulation\.1\.", r"^y_embedder\.embedding_table\.")),
    ("a T5 text encoder", (r"^(encoder\.)?block\.\d+\.layer\.0\.SelfAttention\.",)),
    ("a CLIP text encoder", (r"^(text_model\.)?embeddings\.token_embedding\.", r"^(text_model\.)?encoder\.layers\.0\.")),
)


def layout_of(keys: Iterable[str]) -> str | None:
    """What weights of these names are, as a noun with its article ("a LoRA in kohya's layout"); None if nothing known.

    The models' own layouts have names too: whether a layout is the wanted one, the caller knows. A prefix `module.` or the like must be
    gone, as `load_state_dict` leaves keys.
    """
    text = "\n".join(keys)
    return next((name for name, patterns in LAYOUTS if all(re.search(pattern, text, re.MULTILINE) for pattern in patterns)), None)
