"""Prompts to pictures: the four networks, where they are at what time, and how a run is cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from flux.files import CONFIGS
from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.sampler import denoise, get_noise, get_schedule, prepare, unpack
from flux.weights import Files, autoencoder, flow_model, load_clip, load_t5, reader
from toca.methods import Method
from toca.runs.pictures import check_finite, to_uint8
from toca.runs.programs import DTYPES, reproducible_matmuls

GB = 1e9
Condition = Callable[[AutoEncoder], Tensor]  # packed latents (1, N, C) that every input is extended by


@dataclass(frozen=True)
class Pipeline:
    """Networks and settings of a run of text to image.

    offload: networks wait on the CPU, and only those at work are on `device`. upstream: the published programs' numerics.
    """

    model: Flux
    ae: AutoEncoder
    t5: HFEmbedder
    clip: HFEmbedder
    device: torch.device
    method: Method
    shifted: bool = True
    offload: bool = False
    upstream: bool = False
    progress: bool = False

    @classmethod
    def load(cls, files: Files, device: torch.device, progress: bool = False) -> Pipeline:
        """The networks of a run, on the device or, with `offload`, on the CPU. Raises ValueError or OSError on unusable files."""
        reproducible_matmuls()
        settings = files.settings
        config, dtype, home = CONFIGS[settings.name], DTYPES[settings.dtype], torch.device("cpu") if settings.offload else device
        model = flow_model(settings.name, files.flow, files.lora, settings.lora_scale, settings.keep_lora, reader(home, dtype))
        ae = autoencoder(files.ae, reader(home, torch.float32), sample_z=settings.upstream_numerics)
        return cls(
            model=model.requires_grad_(False).eval(),
            ae=ae.requires_grad_(False).eval(),
            t5=load_t5(home, config.t5_length, files.t5, dtype),
            clip=load_clip(home, files.clip, dtype),
            device=device,
            method=settings.run.method,
            shifted=config.shifted,
            offload=settings.offload,
            upstream=settings.upstream_numerics,
            progress=progress,
        )

    def generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        height: int,
        width: int,
        num_steps: int,
        guidance: float,
        condition: Condition | None = None,
        image_tokens: Tensor | None = None,
    ) -> np.ndarray:
        """Pictures (B, H, W, 3) uint8 of prompts and a seed each; a picture does not depend on the others.

        height, width: multiples of 16. condition: of control and fill. image_tokens: (1, M, D), appended to the text (redux).
        """
        noise = torch.cat([get_noise(1, height, width, self.device, torch.float32, seed) for seed in seeds])
        with self.at_work(self.t5, self.clip):
            inputs = prepare(self.t5, self.clip, noise, prompts)
        if image_tokens is not None:
            inputs["txt"] = torch.cat((inputs["txt"], image_tokens.to(inputs["txt"]).expand(len(noise), -1, -1)), dim=1)
            inputs["txt_ids"] = inputs["txt_ids"].new_zeros(*inputs["txt"].shape[:2], 3)
        if condition is not None:
            with self.at_work(self.ae):
                inputs["img_cond"] = condition(self.ae).expand(len(noise), -1, -1)
        timesteps = get_schedule(num_steps, inputs["img"].shape[1], shift=self.shifted)
        settings = dict(method=self.method, seeds=seeds, upstream=self.upstream, progress=self.progress)
        with self.at_work(self.model):
            x = denoise(self.model, **inputs, timesteps=timesteps, guidance=guidance, **settings)
        check_finite(x, "the latents")
        return self.decode(unpack(x.float(), height, width))

    @torch.no_grad()
    def decode(self, z: Tensor) -> np.ndarray:
        """Latents (B, 16, h, w) to pictures (B, H, W, 3) uint8. A bfloat16 model on a GPU has its pictures decoded in bfloat16."""
        half = z.is_cuda and self.model.img_in.weight.dtype is torch.bfloat16
        with self.at_work(self.ae), torch.autocast(z.device.type, torch.bfloat16, enabled=half):
            return to_uint8(self.ae.decode(z), truncate=self.upstream)

    @contextmanager
    def at_work(self, *networks: nn.Module) -> Iterator[None]:
        """The networks on the device, and off again with `offload`."""
        if not self.offload:
            yield
            return
        try:
            for network in networks:
                network.to(self.device)
            yield
        finally:
            for network in networks:
                network.to("cpu")
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def weights(self) -> str:
        """What the weights take on the device, in words."""
        text, flow, pictures = nbytes(self.t5) + nbytes(self.clip), nbytes(self.model), nbytes(self.ae)
        everything, most = (text + flow + pictures) / GB, max(text, flow, pictures) / GB
        if not self.offload:
            return f"weights: {everything:.2f} GB on {self.device}"
        saved = f"{everything - most:.2f} GB less than all {everything:.2f}"
        return f"offload: at most {most:.2f} GB of weights on {self.device} at a time, {saved}"


def nbytes(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())
