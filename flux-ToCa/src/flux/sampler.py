"""From noise to latents: packing, schedules and the Euler loop of rectified flow. One token is 2 x 2 latents, 16 x 16 pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from einops import rearrange
from torch import Tensor
from tqdm.auto import tqdm

from flux.model import Flux
from flux.spec import CELL, flux_spec
from toca.engine.cache import Cache
from toca.methods import Method, NoCaching

LATENT_CHANNELS = 16
Encoder = Callable[[Sequence[str]], Tensor]
Callback = Callable[[int, Tensor], None]  # (step, x after it)


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of tokens of a picture."""
    return math.ceil(height / CELL), math.ceil(width / CELL)


def get_noise(
    num_samples: int,
    height: int,
    width: int,
    device: torch.device,
    dtype: torch.dtype,
    seed: int,
    generator_device: torch.device | str = "cpu",
) -> Tensor:
    """Standard normal latents (num_samples, 16, 2 rows, 2 columns) of pictures of height x width pixels.

    generator_device: a CPU generator draws the same numbers for every device; the published programs draw on the device.
    """
    rows, columns = grid(height, width)
    generator = torch.Generator(generator_device).manual_seed(seed)
    shape = (num_samples, LATENT_CHANNELS, 2 * rows, 2 * columns)
    return torch.randn(shape, device=generator_device, dtype=dtype, generator=generator).to(device)


def pack(latents: Tensor) -> Tensor:
    """(B, C, 2 h, 2 w) to tokens (B, h w, 4 C)."""
    return rearrange(latents, "b c (h ph) (w pw) -> b (h w) (c ph pw)", ph=2, pw=2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Tokens (B, h w, 4 C) to latents (B, C, 2 h, 2 w) of a picture of height x width pixels."""
    rows, columns = grid(height, width)
    return rearrange(tokens, "b (h w) (c ph pw) -> b c (h ph) (w pw)", h=rows, w=columns, ph=2, pw=2)


def pack_mask(mask: Tensor) -> Tensor:
    """A mask (B, 1, H, W) in pixels to tokens (B, H W / 256, 256): 8 x 8 pixels to channels, then as latents."""
    return pack(rearrange(mask, "b 1 (h ph) (w pw) -> b (ph pw) h w", ph=8, pw=8))


def image_ids(batch: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """Positions (B, rows columns, 3) of image tokens: (0, row, column)."""
    ids = torch.zeros(rows, columns, 3, device=device)
    ids[..., 1] = torch.arange(rows, device=device)[:, None]
    ids[..., 2] = torch.arange(columns, device=device)
    return ids.reshape(1, rows * columns, 3).repeat(batch, 1, 1)


def prepare(t5: Encoder, clip: Encoder, img: Tensor, prompt: str | Sequence[str]) -> dict[str, Tensor]:
    """The inputs of `denoise` for latents (B, C, 2 h, 2 w) and one prompt, or one for each of them.

    Returns img (B, N, 4 C), img_ids (B, N, 3), txt (B, T, D), txt_ids (B, T, 3), vec (B, V). Raises ValueError if the numbers differ.
    """
    prompts = [prompt] if isinstance(prompt, str) else list(prompt)
    if len(prompts) not in (1, len(img)):
        raise ValueError(f"{len(prompts)} prompts for {len(img)} pictures")
    copies = len(img) // len(prompts)
    txt, vec = t5(prompts).repeat(copies, 1, 1), clip(prompts).repeat(copies, 1)
    return dict(
        img=pack(img),
        img_ids=image_ids(len(img), img.shape[2] // 2, img.shape[3] // 2, img.device),
        txt=txt.to(img.device),
        txt_ids=torch.zeros(*txt.shape[:2], 3, device=img.device),
        vec=vec.to(img.device),
    )


def time_shift(mu: float, sigma: float, t: Tensor) -> Tensor:
    """t in [0, 1] moved towards 1, the more the larger mu: e^mu / (e^mu + (1/t - 1)^sigma)."""
    return math.exp(mu) / (math.exp(mu) + (1 / t - 1) ** sigma)


def shift_of(image_seq_len: int, base_shift: float = 0.5, max_shift: float = 1.15) -> float:
    """mu of a number of image tokens: linear through (256, base_shift) and (4096, max_shift), not clipped."""
    slope = (max_shift - base_shift) / (4096 - 256)
    return slope * image_seq_len + (base_shift - slope * 256)


def get_schedule(num_steps: int, image_seq_len: int, base_shift: float = 0.5, max_shift: float = 1.15, shift: bool = True) -> list[float]:
    """Times from 1 to 0, num_steps + 1 of them. shift: spend more steps near the noise, the more the larger the picture."""
    timesteps = torch.linspace(1, 0, num_steps + 1)
    if shift:
        timesteps = time_shift(shift_of(image_seq_len, base_shift, max_shift), 1.0, timesteps)
    return timesteps.tolist()


@torch.no_grad()
def denoise(
    model: Flux,
    img: Tensor,
    img_ids: Tensor,
    txt: Tensor,
    txt_ids: Tensor,
    vec: Tensor,
    timesteps: Sequence[float],
    guidance: float = 4.0,
    img_cond: Tensor | None = None,
    *,
    method: Method | None = None,
    seeds: Sequence[int] | None = None,
    upstream: bool = False,
    progress: bool = False,
    callback: Callback | None = None,
) -> Tensor:
    """Euler steps x <- x + (t' - t) v(x, t) from noise img (B, N, C) through `timesteps`; returns x in its dtype.

    img_cond: (B, N, C'), appended to the channels of every input. method: of caching; default none. seeds: one per picture, for methods
    that draw tokens.
    upstream: latents, times and guidance in the model's dtype, as the published programs have them. By default they stay in float32, so
    that a bfloat16 model sees the times of the schedule (its time embedding is off by up to 3.5 of 1000 otherwise).
    callback: sees x after every step, for previews; an exception in it ends the run.
    """
    dtype = model.img_in.weight.dtype
    working = dtype if upstream else torch.float32
    x = img.to(working)
    constant = dict(img_ids=img_ids, txt=txt.to(dtype), txt_ids=txt_ids, y=vec.to(dtype))
    constant["guidance"] = torch.full((len(x),), guidance, device=x.device, dtype=working)
    spec, num_steps = flux_spec(model.params, img.shape[1], txt.shape[1]), len(timesteps) - 1
    with Cache(spec, method or NoCaching(), num_steps, seeds=seeds) as cache:
        model.precompute(cache, torch.tensor(timesteps[:-1], device=x.device, dtype=working), constant["y"], constant["guidance"])
        pairs = itertools.pairwise(timesteps)
        for step, (t, t_next) in enumerate(tqdm(pairs, total=num_steps, disable=not progress, leave=False, desc="denoising")):
            tokens = x.to(dtype) if img_cond is None else torch.cat((x.to(dtype), img_cond.to(dtype)), dim=-1)
            v = model(img=tokens, timesteps=torch.full((len(x),), t, device=x.device, dtype=working), cache=cache, **constant)
            x = x + (t_next - t) * v.to(working)
            if callback is not None:
                callback(step, x)
    return x
