"""What a file of weights is, by names as published files have them."""

from __future__ import annotations

import pytest

from toca.loading.layouts import LAYOUTS, layout_of

NAMES = {
    "weights quantised by bitsandbytes": ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.qkv.weight.absmax"],
    "a LoRA in kohya's layout": [
        "lora_unet_double_blocks_0_img_attn_proj.alpha",
        "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
    ],
    "a LoRA in XLabs' layout": ["double_blocks.0.processor.proj_lora1.down.weight"],
    "a LoRA in PEFT's layout": ["base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight"],
    "a LoRA in diffusers' layout": ["transformer.transformer_blocks.0.attn.to_q.lora_A.weight"],
    "a LoRA in FLUX's layout": ["double_blocks.0.img_attn.qkv.lora_A.weight", "double_blocks.0.img_attn.qkv.lora_B.bias"],
    "a LoRA": ["blocks.0.attn.qkv.lora_A.weight"],
    "scaled fp8 weights": ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.qkv.scale_weight", "scaled_fp8"],
    "an all-in-one checkpoint with text encoders and VAE": ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "vae.decoder.a"],
    "a FLUX transformer in diffusers' layout": [
        "x_embedder.weight",
        "transformer_blocks.0.attn.add_q_proj.weight",
        "single_transformer_blocks.0.proj_mlp.weight",
    ],
    "a DiT in diffusers' layout": ["transformer_blocks.0.norm1.emb.class_embedder.embedding_table.weight"],
    "a PixArt transformer in diffusers' layout": [
        "adaln_single.linear.weight",
        "caption_projection.linear_1.bias",
        "transformer_blocks.0.attn1.to_q.weight",
    ],
    "another transformer in diffusers' layout": ["transformer_blocks.0.attn1.to_q.weight"],
    "a UNet in diffusers' layout": ["down_blocks.0.resnets.0.conv1.weight", "time_embedding.linear_1.weight"],
    "an AutoencoderKL in diffusers' layout": ["encoder.conv_in.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"],
    "an autoencoder in the layout of FLUX and latent diffusion": ["decoder.up.0.block.0.conv1.weight"],
    "a FLUX transformer in its published layout": ["double_blocks.0.img_attn.qkv.weight", "single_blocks.0.linear1.weight"],
    "an Open-Sora transformer (STDiT3)": ["spatial_blocks.0.attn.qkv.weight", "temporal_blocks.0.attn.qkv.weight"],
    "a PixArt transformer in its published layout": ["t_block.1.weight", "blocks.0.cross_attn.proj.weight"],
    "a DiT in its published layout": ["blocks.0.adaLN_modulation.1.weight", "y_embedder.embedding_table.weight"],
    "a T5 text encoder": ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"],
    "a CLIP text encoder": ["text_model.embeddings.token_embedding.weight", "text_model.encoder.layers.0.mlp.fc1.weight"],
}


@pytest.mark.parametrize("layout", [layout for layout, _ in LAYOUTS])
def test_every_layout_is_known_by_its_names(layout: str) -> None:
    assert layout_of(NAMES[layout]) == layout
    assert layout_of(["first", *reversed(NAMES[layout]), "last.weight"]) == layout


def test_other_names_are_unknown() -> None:
    assert layout_of([]) is None and layout_of(["weight", "bias"]) is None
