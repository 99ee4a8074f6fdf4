"""Small components with random weights in the layouts of the published ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from opensora.models.stdit.stdit3 import STDiT3
from opensora.models.vae import VideoAutoencoderPipeline
from opensora.spec import STDiT3Config
from toca.testing.parts import randomize, save_t5

TEXT_WIDTH, TEXT_LENGTH = 24, 40
MODEL_SIZES = dict(depth=2, hidden_size=32, num_heads=2, caption_channels=TEXT_WIDTH, model_max_length=TEXT_LENGTH)
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


def save_stdit(folder: Path) -> Path:
    """A folder as OpenSora-STDiT-v3."""
    folder.mkdir(parents=True)
    model = randomize(STDiT3(STDiT3Config(**MODEL_SIZES)), seed=2)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "model.safetensors")
    published = dict(architectures=["STDiT3"], model_type="STDiT3", input_size=[None, None, None], torch_dtype="float32", qk_norm=True)
    (folder / "config.json").write_text(json.dumps(published | MODEL_SIZES))
    return folder


CONFIG = """
resolution = "144p"
aspect_ratio = "1:1"
num_frames = 17
dtype = "fp32"
align = 5
aes = 6.5
preset = "toca-r85"
model = dict(type="STDiT3-XL/2", from_pretrained="{stdit}")
vae = dict(type="OpenSoraVAE_V1_2", from_pretrained="{vae}", micro_frame_size=17, micro_batch_size=4)
text_encoder = dict(type="t5", from_pretrained="{t5}", model_max_length={length})
scheduler = dict(type="rflow", use_timestep_transform=True, num_sampling_steps=6, cfg_scale=4.0)
"""


def save_all(folder: Path) -> Path:
    """All components and a configuration that names them; returns its path."""
    parts = dict(stdit=save_stdit(folder / "stdit"), vae=save_vae(folder / "vae"), t5=save_t5(folder / "t5", TEXT_WIDTH))
    path = folder / "tiny.py"
    path.write_text(CONFIG.format(length=TEXT_LENGTH, **parts))
    return path
