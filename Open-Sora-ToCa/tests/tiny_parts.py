"""Small components with random weights in the layouts of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from opensora.models.vae import VideoAutoencoderPipeline

VAE_SIZES = dict(
    vae_2d=dict(block_out_channels=(4, 8, 8, 16), layers_per_block=1, norm_num_groups=4),
    vae_temporal=dict(filters=4, num_res_blocks=1, num_groups=2),
)


def save_vae(folder: Path) -> Path:
    """A folder as OpenSora-VAE-v1.2."""
    torch.manual_seed(1)
    folder.mkdir(parents=True)
    save_file(VideoAutoencoderPipeline(**VAE_SIZES).state_dict(), folder / "model.safetensors")
    published = dict(architectures=["VideoAutoencoderPipeline"], cal_loss=False, micro_frame_size=17, model_type="VideoAutoencoderPipeline")
    parts = dict(vae_2d=dict(type="VideoAutoencoderKL", micro_batch_size=4, subfolder="vae"), vae_temporal=dict(type="VAE_Temporal_SD"))
    (folder / "config.json").write_text(json.dumps(published | {part: parts[part] | VAE_SIZES[part] for part in parts}))
    return folder
