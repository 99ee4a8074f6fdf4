"""Seconds and bytes of PixArt-alpha sampling at real sizes, with random weights: `toca bench pixart`.

toca bench pixart --batch 1 8 32                                    # XL/2 at 256 pixels, DPM-Solver++, 20 steps, on the CPU
toca bench pixart --device cuda --dtype fp16 --batch 1 8 32 100
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

import toca.engine.cache
from pixart.flags import CHECKOUT, LONGEST_TEXT, PUBLISHED_TEXT
from pixart.model import PixArt, PixArtMS
from pixart.solvers import DPMS
from pixart.spec import CONFIGS, VAE_STRIDE, PixArtConfig, pixart_spec
from toca.cli.flags import MOST_STEPS, Parser, whole
from toca.engine.cache import Cache
from toca.engine.selection import Selector
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.runs.bench import DTYPES, Result, Watch, add_flags, print_result, result_of, run_all, seconds_inside
from toca.runs.clock import Clock
from toca.runs.programs import program_errors

README = ToCa(3, 0.3)
METHODS: dict[str, Method] = {
    "uncached": NoCaching(),
    "ToCa N=3 R=70%": README,
    "ToCa N=3 R=70% frozen": replace(README, frozen=True),
    "ToCa N=3 R=70% upstream": replace(README, upstream_exact=True),
    "ToCa N=3 R=90%": ToCa(3, 0.1),
    "DuCa N=3 r=0.75": DuCa(3, 0.75),
    "FORA N=3": FORA(3),
    "TaylorSeer N=3 O=1": TaylorSeer(3, 1),
}
RATING = {  # the attention that rates includes attending, which an unrated step does too
    "scoring": (toca.engine.cache, "attention_with_entropy"),
    "ranking": (Selector, "_rank"),
    "noting": (Selector, "observe"),
    "opening": (Selector, "begin"),
}


def random_model(config: PixArtConfig, device: torch.device, dtype: torch.dtype) -> PixArt:
    with torch.device(device):
        model = (PixArtMS if config.micro_conditions else PixArt)(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return model.to(device, dtype)


@torch.no_grad()
def sample(model: PixArt, method: Method, steps: int, batch: int, text_tokens: int) -> Result:
    """One guided DPM-Solver++ run on random latents and texts of half to all of `text_tokens`, as `Watch.stop` has it, and `rating`:
    seconds spent on scores and choices."""
    config, device, dtype = model.config, model.pos_embed.device, model.dtype
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(batch, config.in_channels, config.input_size, config.input_size, generator=generator).to(device)
    text = torch.randn(batch, text_tokens, config.caption_channels, generator=generator).to(device, dtype)
    lengths = torch.linspace(text_tokens, (text_tokens + 1) // 2, batch).long()
    kwargs = dict(mask=(torch.arange(text_tokens) < lengths[:, None]).to(device))
    if config.micro_conditions:
        pixels = torch.full((batch, 2), float(config.input_size * VAE_STRIDE), device=device)
        kwargs["data_info"] = dict(img_hw=pixels, aspect_ratio=torch.ones(batch, 1, device=device))
    null = model.y_embedder.y_embedding[:text_tokens].expand_as(text)
    with Cache(pixart_spec(config, text_tokens=text_tokens), method, steps) as cache, seconds_inside(device, RATING) as rating:
        watch = Watch(cache, Clock(device))
        watch.start()
        DPMS(watch.model(model.forward_with_dpmsolver), text, null, 4.5, kwargs | dict(cache=cache)).sample(z, steps)
        return watch.stop() | dict(rating=rating())


def upstream_bytes(config: PixArtConfig, rows: int, text_tokens: int, element_size: int) -> dict[str, int]:
    """What the published code holds where we hold the bytes of `toca.planning.memory`.

    Outputs of all branches; head-averaged maps of attention, and of cross-attention on one sequence of all images and all texts; one copy
    of the latter's map of all heads while it runs.
    """
    n, c, depth = config.grid()[0] * config.grid()[1], config.hidden_size, config.depth
    flat = rows * n * rows * text_tokens * element_size
    return dict(
        outputs=3 * depth * rows * n * c * element_size,
        self_maps=depth * rows * n * n * element_size,
        cross_maps=depth * flat,
        running_map=config.num_heads * flat,
    )


def bench(pixels: int, dtype: str, batch: int, args: argparse.Namespace, device: torch.device) -> Iterator[Result]:
    """Every method on one model; the uncached run comes first and is what the others are compared with, half its steps come last."""
    config = CONFIGS[pixels].replace(depth=args.depth or CONFIGS[pixels].depth)
    model, steps, length = random_model(config, device, DTYPES[dtype]), args.step, args.text_tokens
    element_size = model.pos_embed.element_size()
    sample(model, ToCa(2, 0.3), 2, batch, length)  # warm-up
    base: Result | None = None
    runs = [(name, METHODS[name], steps) for name in dict.fromkeys(["uncached", *args.methods])]
    for name, method, count in [*runs, (f"uncached, {steps // 2} steps", NoCaching(), steps // 2)]:
        run = sample(model, method, count, batch, length)
        result = dict(image_size=pixels, depth=config.depth, dtype=dtype, batch=batch, text_tokens=length, method=name)
        result |= result_of(run, method, 2 * batch, element_size, base)
        full_step = (base or result)["groups"][0]["seconds"]
        result["seconds_per_image"] = run["seconds"] / batch
        result["rating_share_of_full_steps"] = sum(run["rating"].values()) / (count * full_step)
        result["rating_seconds"] = run["rating"]
        result["upstream_bytes"] = upstream_bytes(config, 2 * batch, length, element_size)
        print_result(f"PixArt-alpha {pixels} px {dtype} batch {batch}, {name}", result, base)
        print(f"  scores and choices: {result['rating_share_of_full_steps']:.2%} of a full step per step", flush=True)
        base = base or result
        yield result


def parser() -> Parser:
    p = Parser(prog="toca bench pixart", description=__doc__)
    p.add_argument("--image_size", nargs="+", type=int, choices=CONFIGS, default=[256])
    p.add_argument("--step", type=whole(2, MOST_STEPS), default=20)
    p.add_argument("--text_tokens", type=whole(1, LONGEST_TEXT), default=PUBLISHED_TEXT, help="of the longest text")
    p.add_argument("--depth", type=whole(1, 1000), default=None, help="layers, for a shorter benchmark (default: all 28)")
    add_flags(p, METHODS)
    return p


@program_errors("try a smaller --batch or --depth", after="the results so far are in the file")
def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run_all(args, CHECKOUT / "benchmarks", args.image_size, bench)


if __name__ == "__main__":
    main()
