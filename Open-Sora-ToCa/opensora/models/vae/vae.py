"""The video autoencoder of Open-Sora v1.2: an image autoencoder per frame, then one over time on its latents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from diffusers import AutoencoderKL
from einops import rearrange
from torch import Tensor

from opensora.datasets.aspect import CHUNK, LATENT_CHUNK, latent_frames
from opensora.models.vae.vae_temporal import VAE_Temporal
from opensora.registry import MODELS
from opensora.weights import checkpoint_path, load_weights, read_config

SHIFT, SCALE = (-0.10, 0.34, 0.27, 0.98), (3.85, 2.32, 2.33, 3.06)  # of the four channels
SPATIAL_SCALE = 0.18215  # not the image autoencoder's own
IMAGE_CONFIG = dict(
    in_channels=3,
    out_channels=3,
    latent_channels=4,
    down_block_types=("DownEncoderBlock2D",) * 4,
    up_block_types=("UpDecoderBlock2D",) * 4,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    norm_num_groups=32,
)
Draw = Callable[[tuple[int, ...]], Tensor]


class VideoAutoencoderKL(nn.Module):
    """The image autoencoder, frame by frame. micro_batch_size: frames at a time; it decides the memory and nothing else."""

    def __init__(self, micro_batch_size: int = 4, **config: Any) -> None:
        super().__init__()
        self.module = AutoencoderKL(**IMAGE_CONFIG | config)
        self.micro_batch_size = micro_batch_size

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations (B T, 4, H / 8, W / 8) of frames (B T, 3, H, W), which may wait on the CPU."""
        weight = self.module.quant_conv.weight
        parts = [self.module.encode(frames.to(weight)).latent_dist for frames in x.split(self.micro_batch_size)]
        return torch.cat([part.mean for part in parts]), torch.cat([part.std for part in parts])

    def decode(self, z: Tensor) -> Iterator[Tensor]:
        """Frames (up to micro_batch_size, 3, 8 h, 8 w) of latents (T, 4, h, w), one micro batch after the other."""
        for latents in z.split(self.micro_batch_size):
            yield self.module.decode(latents / SPATIAL_SCALE).sample


class VideoAutoencoderPipeline(nn.Module):
    """Pixels (B, 3, T, H, W) in [-1, 1] to latents (B, 4, T', H / 8, W / 8) and back; clips are cut into chunks of 17 frames.

    vae_2d, vae_temporal: sizes that differ from the released ones. shift, scale: of the latents' channels.
    """

    def __init__(
        self,
        vae_2d: Mapping[str, Any] | None = None,
        vae_temporal: Mapping[str, Any] | None = None,
        micro_batch_size: int = 4,
        shift: Sequence[float] = SHIFT,
        scale: Sequence[float] = SCALE,
    ) -> None:
        super().__init__()
        self.spatial_vae = VideoAutoencoderKL(micro_batch_size, **(vae_2d or {}))
        self.temporal_vae = VAE_Temporal(**(vae_temporal or {}))
        for name, values in (("shift", shift), ("scale", scale)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1, 1))

    @torch.no_grad()
    def encode(self, x: Tensor, draw: Draw | None = None) -> Tensor:
        """Latents (B, 4, T', H // 8, W // 8) of a clip.

        draw: standard normal numbers of a shape, asked once for all frames, then once for all latents; None takes the means.
        """
        batch = len(x)
        mean, std = self.spatial_vae.encode(rearrange(x, "b c t h w -> (b t) c h w"))
        frames = SPATIAL_SCALE * (mean + std * draw(tuple(mean.shape)).to(mean) if draw else mean)
        frames = rearrange(frames, "(b t) c h w -> b c t h w", b=batch)
        means, log_variances = zip(*(self.temporal_vae.encode(chunk) for chunk in frames.split(CHUNK, dim=2)))
        z = torch.cat(means, dim=2)
        if draw:
            z = z + (0.5 * torch.cat(log_variances, dim=2).clamp(-30, 20)).exp() * draw(tuple(z.shape)).to(z)
        return (z - self.shift) / self.scale

    @torch.no_grad()
    def decode(self, z: Tensor, num_frames: int, device: torch.device | str | None = None) -> Tensor:
        """The clip (B, 3, num_frames, 8 h, 8 w) of latents (B, 4, T', h, w), in float32 on `device`, by default that of z.

        Only a chunk of latents and a micro batch of frames are at work at a time. Raises ValueError if z has another number of frames.
        """
        if z.shape[2] != latent_frames(num_frames):
            raise ValueError(f"{num_frames} frames have {latent_frames(num_frames)} latent frames, got {z.shape[2]}")
        z = z.to(self.scale) * self.scale + self.shift
        clip, done = None, 0
        for chunk in z.split(LATENT_CHUNK, dim=2):
            frames = self.temporal_vae.decode(chunk, min(CHUNK, num_frames - done))
            for item, latents in enumerate(rearrange(frames, "b c t h w -> b t c h w")):
                first = done
                for pixels in self.spatial_vae.decode(latents):
                    if clip is None:
                        clip = torch.empty(len(z), 3, num_frames, *pixels.shape[2:], device=device or z.device)
                    clip[item, :, first : first + len(pixels)] = pixels.transpose(0, 1)
                    first += len(pixels)
            done += frames.shape[2]
        return clip


FOLDER_KEYS = {"architectures", "cal_loss", "freeze_vae_2d", "from_pretrained", "micro_frame_size", "model_type", "torch_dtype"}
PART_KEYS = {"type", "from_pretrained", "subfolder", "local_files_only"}  # of the published configuration; its sizes are the defaults


def settings_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `VideoAutoencoderPipeline` in a folder's config.json."""
    settings = {key: value for key, value in config.items() if key not in FOLDER_KEYS and key != "transformers_version"}
    for part in ("vae_2d", "vae_temporal"):
        settings[part] = {key: value for key, value in (config.get(part) or {}).items() if key not in PART_KEYS}
    settings["vae_2d"].pop("micro_batch_size", None)
    return settings


def meta_vae(path: Path, micro_batch_size: int = 4) -> VideoAutoencoderPipeline:
    """The autoencoder of a folder's config.json, without weights. Raises ValueError if there is none of such a configuration."""
    with torch.device("meta"):
        try:
            return VideoAutoencoderPipeline(micro_batch_size=micro_batch_size, **settings_of(read_config(path)))
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            raise ValueError(f"{path}/config.json: {error}") from error


@MODELS.register_module("OpenSoraVAE_V1_2")
def OpenSoraVAE_V1_2(
    micro_batch_size: int = 4,
    micro_frame_size: int = CHUNK,
    from_pretrained: str | None = None,
    local_files_only: bool = False,
    freeze_vae_2d: bool = False,
    cal_loss: bool = False,
) -> VideoAutoencoderPipeline:
    """The video autoencoder with the weights of a folder (config.json and model.safetensors), of a file, or of a hub name.

    The checkpoint holds both of its parts. freeze_vae_2d, cal_loss: of training, accepted because configurations have them.
    Raises ValueError on a checkpoint that does not fit, OSError if there is none.
    """
    if micro_frame_size != CHUNK:
        raise ValueError(f"micro_frame_size must be {CHUNK}, what this autoencoder was trained with, got {micro_frame_size}")
    if from_pretrained is None:
        return VideoAutoencoderPipeline(micro_batch_size=micro_batch_size).eval()
    path = checkpoint_path(from_pretrained, local_files_only)
    vae = meta_vae(path, micro_batch_size)
    load_weights(vae, path)
    return vae.eval().requires_grad_(False)
