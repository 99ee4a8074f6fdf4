"""From class labels and seeds to pictures: what sample.py, sample_ddp.py, demo.py and the benchmark share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion import GaussianDiffusion, create_diffusion
from dit_cli import config_from, method_from
from dit_spec import dit_spec
from download import checkpoint_path
from models import DiT
from toca.cache import Cache
from toca.flops import total_flops, uncached_flops
from toca.methods import Method
from toca.plan import Plan
from toca.weights import load_into, load_state_dict

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LATENT_SCALE = 0.18215
DECODE_BATCH = 8
Decoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sampler:
    """A DiT, a diffusion and how to run them.

    ddim: DDIM with `eta`, else DDPM. cfg_scale 1 runs without guidance. guide_all_channels: guide every noise channel, not the first three.
    """

    model: DiT
    diffusion: GaussianDiffusion
    method: Method
    ddim: bool = True
    eta: float = 0.0
    cfg_scale: float = 1.5
    guide_all_channels: bool = False
    clip_denoised: bool = False
    progress: bool = False

    @property
    def guided(self) -> bool:
        return self.cfg_scale != 1.0

    @property
    def plan(self) -> Plan:
        return self.method.plan(self._spec, self.diffusion.num_timesteps)

    @property
    def _spec(self):
        return dit_spec(self.model.config, "ddim" if self.ddim else "ddpm")

    def sample(self, labels: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents (or pixels) (B, C, H, W) of class labels (B,), each from its own CPU generator: no image depends on its batch."""
        shape = (self.model.in_channels, *self._input_shape)

        def draw(generator: torch.Generator) -> Tensor:
            return torch.randn(shape, generator=generator)

        def noise(step: int, _: torch.Size) -> Tensor:
            return self._rows(torch.stack([draw(generator) for generator in generators]).to(labels.device))

        seeds = [generator.initial_seed() for generator in generators]
        return self.run(labels, noise(self.diffusion.num_timesteps, torch.Size()), seeds, noise_fn=noise)

    def sample_upstream_stream(self, labels: Tensor, z: Tensor) -> Tensor:
        """As `sample`, from latents z (B, C, H, W), with the sampler's draws taken from the global generator in upstream's order."""
        return self.run(labels, self._rows(z), seeds=None, upstream_noise=True)

    @torch.no_grad()
    def run(self, labels: Tensor, z: Tensor, seeds: Sequence[int] | None, **options) -> Tensor:
        """The sampling loop from latents z (R, C, H, W), [cond; uncond] with guidance, R rows."""
        y = torch.cat([labels, torch.full_like(labels, self.model.num_classes)]) if self.guided else labels
        model, loop = self.model, self.diffusion.p_sample_loop
        if self.ddim:
            loop, options["eta"] = self.diffusion.ddim_sample_loop, self.eta
        with Cache(self._spec, self.method, self.diffusion.num_timesteps, seeds=seeds) as cache:
            kwargs = dict(y=y, cache=cache)
            if self.guided:
                model = self.model.forward_with_cfg
                kwargs |= dict(cfg_scale=self.cfg_scale, guide_all_channels=self.guide_all_channels)
            timesteps = torch.tensor(self.diffusion.timestep_map[::-1], device=z.device)
            self.model.precompute_modulation(cache, timesteps, y)
            x = loop(model, z.shape, z, model_kwargs=kwargs, clip_denoised=self.clip_denoised, progress=self.progress, **options)
        return x[: len(labels)]

    def summary(self) -> dict[str, object]:
        """What the plan does, for one line on the terminal and for the manifest."""
        plan, rows = self.plan, 2 if self.guided else 1
        return dict(
            method=self.method.name,
            steps=dict(plan.kind_counts()),
            tokens_refreshed=round(plan.tokens_refreshed(), 4),
            tflops_per_image=total_flops(plan, "matmul", rows) / 1e12,
            flops_speedup=round(uncached_flops(plan, "matmul", rows) / total_flops(plan, "matmul", rows), 3),
        )

    @property
    def _input_shape(self) -> tuple[int, int]:
        size = self.model.config.input_size
        return (size, size) if isinstance(size, int) else size

    def _rows(self, x: Tensor) -> Tensor:
        return torch.cat([x, x]) if self.guided else x


def load_model(args: argparse.Namespace, device: torch.device) -> DiT:
    """The model of the flags with its checkpoint, in the wanted dtype, built without initialising weights first."""
    path = checkpoint_path(args.model, args.image_size, args.ckpt)
    with torch.device("meta"):
        model = DiT(config_from(args))
    load_into(model, load_state_dict(path), str(path))
    return model.to(device, DTYPES[args.dtype]).eval()


def load_decoder(name: str, device: torch.device) -> Decoder:
    """Latents (B, 4, h, w) to pixels (B, 3, H, W) in [-1, 1], a few at a time; `none` for models that work on pixels."""
    if name == "none":
        return lambda x: x
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(f"stabilityai/sd-vae-ft-{name}" if name in ("ema", "mse") else name).to(device).eval()

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return torch.cat([vae.decode(chunk / LATENT_SCALE).sample for chunk in latents.split(DECODE_BATCH)])

    return decode


def make_sampler(args: argparse.Namespace, model: DiT, progress: bool = False) -> Sampler:
    return Sampler(
        model,
        create_diffusion(str(args.num_sampling_steps)),
        method_from(args),
        ddim=args.ddim_sample,
        eta=args.eta,
        cfg_scale=args.cfg_scale,
        guide_all_channels=args.guide_all_channels,
        progress=progress,
    )


def to_uint8(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] -> (B, H, W, 3) uint8 as upstream: clamp(127.5 x + 128), truncated."""
    return (127.5 * images + 128).clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def add_sampling_flags(parser: argparse.ArgumentParser, vae: str) -> None:
    """Flags of sample.py and sample_ddp.py beside the model's and the method's."""
    parser.add_argument("--vae", default=None, help=f"ema, mse, a diffusers folder or hub name, or none (default {vae}; DiT-mini: none)")
    parser.add_argument("--ckpt", default=None, help="checkpoint (.pt, .safetensors); default: the official one, or the embedded DiT-mini")
    parser.add_argument("--eta", type=float, default=0.0, help="DDIM's noise")
    parser.add_argument("--guide-all-channels", action="store_true", help="guide all noise channels, not the first three as published")
    parser.add_argument("--upstream-stream", action="store_true", help="draw all noise from one global generator in upstream's order")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32")
    parser.add_argument("--device", default=None, help="default: cuda where there is one, else cpu")
    parser.add_argument("--tf32", action=argparse.BooleanOptionalAction, default=True, help="TF32 matmuls on CUDA")
    parser.add_argument("--test-FLOPs", action="store_true", help="print the FLOPs of the run; samples nothing")


def prepare(args: argparse.Namespace, vae: str) -> torch.device:
    """Fill in defaults that depend on other flags, set precision, and name the device."""
    args.vae = args.vae or ("none" if config_from(args).in_channels == 3 else vae)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    return torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))


def describe(sampler: Sampler) -> str:
    s = sampler.summary()
    steps = ", ".join(f"{count} {kind}" for kind, count in s["steps"].items())
    return f"{s['method']}: {steps} steps; {s['tokens_refreshed']:.1%} of MLP tokens computed; {s['tflops_per_image']:.3f} TFLOPs per image, {s['flops_speedup']:.2f}x less than uncached"


def print_flops(sampler: Sampler, images: int) -> None:
    """`--test-FLOPs`: what upstream's counter prints for the whole batch, and every matrix product counted at two per multiply-add."""
    rows = 2 if sampler.guided else 1
    for counter in ("upstream", "matmul"):
        print(f"{counter}: {total_flops(sampler.plan, counter, rows * images) / 1e12} TFLOPs for {images} image(s)")


