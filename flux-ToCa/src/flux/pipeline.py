"""Prompts to pictures: the four networks, where they are at what time, and how a run is cached."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from flux.model import Flux
from flux.modules.autoencoder import AutoEncoder
from flux.modules.conditioner import HFEmbedder
from flux.pictures import to_uint8
from flux.sampler import denoise, get_noise, get_schedule, prepare, unpack
from flux.spec import flux_spec
from toca.methods import Method
from toca.planning.flops import rounded_tflops, total_flops, uncached_flops
from toca.planning.memory import predict
from toca.planning.spec import ModelSpec

GB = 1e9
Condition = Callable[[AutoEncoder], Tensor]  # packed latents (1, N, C) that every input is extended by


@dataclass
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


@dataclass(frozen=True)
class Cost:
    """What a run costs by its plan, before it runs and without weights."""

    spec: ModelSpec
    method: Method
    num_steps: int

    def summary(self, element_size: int = 2) -> dict[str, object]:
        """For the terminal and for the settings beside the pictures. element_size: bytes of a number of the model."""
        plan = self.method.plan(self.spec, self.num_steps)
        flops, uncached = total_flops(plan, "matmul", 1), uncached_flops(plan, "matmul", 1)
        return dict(
            method=self.method.name,
            steps=dict(plan.kind_counts()),
            tflops_per_image=flops / 1e12,
            uncached_tflops_per_image=uncached / 1e12,
            flops_speedup=round(uncached / flops, 3),
            cache_bytes_per_image=max(held.total for held in predict(plan, self.method, 1, element_size)),
        )

    def describe(self, element_size: int = 2) -> str:
        s = self.summary(element_size)
        steps = ", ".join(f"{count} {kind}" for kind, count in s["steps"].items())
        saved = f"{s['tflops_per_image']:.2f} of {s['uncached_tflops_per_image']:.2f} TFLOPs per image, {s['flops_speedup']:.2f}x less"
        return f"{s['method']}: {steps} steps; {saved}; the cache takes {s['cache_bytes_per_image'] / GB:.2f} GB per image"

    def flops_lines(self, images: int) -> str:
        """Both counters of the engine: what the published code's counter prints, and every matrix product at two per multiply-add."""
        plan = self.method.plan(self.spec, self.num_steps)
        upstream, matmul = (total_flops(plan, counter, images) / 1e12 for counter in ("upstream", "matmul"))
        printed = rounded_tflops(plan, "upstream", images)
        return (
            f"upstream: {upstream:.2f} TFLOPs for {images} image(s); {printed:.2f} with every step rounded, as published\n"
            f"matmul: {matmul:.2f} TFLOPs for {images} image(s)"
        )


def cost_of(params: object, height: int, width: int, txt_tokens: int, method: Method, num_steps: int, lora_rank: int = 0) -> Cost:
    """lora_rank: of an adapter kept beside the weights. Raises ValueError on settings of the method that make no sense."""
    return Cost(flux_spec(params, (height // 16) * (width // 16), txt_tokens, lora_rank), method, num_steps)
