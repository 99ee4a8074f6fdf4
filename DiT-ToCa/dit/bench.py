"""Seconds and bytes of DiT sampling at real sizes, with random weights: `toca bench dit`.

toca bench dit --model DiT-B/2 DiT-XL/2 --dtype fp32 bf16        # DDIM-50, one guided image
toca bench dit --model DiT-XL/2 --device cuda --dtype bf16 --batch 1 8 64
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch

from dit.flags import FOLDER, SIZES, VAE_STRIDE
from dit.model import DiT
from dit.spec import CONFIGS, dit_spec
from toca.cli.flags import MOST_PIXELS, MOST_STEPS, Parser, whole
from toca.diffusion import create_diffusion
from toca.engine.cache import Cache
from toca.methods import FORA, DuCa, Method, NoCaching, TaylorSeer, ToCa
from toca.runs.bench import DTYPES, Result, Watch, add_flags, print_result, result_of, run_all
from toca.runs.clock import Clock

METHODS: dict[str, Method] = {
    "uncached": NoCaching(),
    "FORA N=3": FORA(3),
    "ToCa N=3 r=0.07": ToCa(3, 0.07),
    "DuCa N=3 r=0.05": DuCa(3, 0.05),
    "TaylorSeer N=3 O=1": TaylorSeer(3, 1),
}


@torch.no_grad()
def sample(model: DiT, method: Method, steps: int, batch: int, cfg_scale: float = 1.5) -> Result:
    """One DDIM run of random weights on random latents, as `Watch.stop` has it; `before`: seconds of precomputing modulations."""
    config, weight = model.config, model.pos_embed
    device, dtype, side = weight.device, weight.dtype, config.input_size
    diffusion = create_diffusion(str(steps))
    z = torch.randn(batch, config.in_channels, side, side, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(batch, device=device) % config.num_classes
    y = torch.cat([labels, torch.full_like(labels, config.num_classes)])
    with Cache(dit_spec(config), method, steps) as cache:
        watch = Watch(cache, Clock(device))
        network = watch.model(lambda x, t, **kwargs: model.forward_with_cfg(x.to(dtype), t, **kwargs))
        watch.start()
        model.precompute_modulation(cache, torch.tensor(diffusion.timestep_map[::-1], device=device), y)
        watch.clock.mark()
        x = torch.cat([z, z])
        diffusion.ddim_sample_loop(network, x.shape, x, model_kwargs=dict(y=y, cfg_scale=cfg_scale, cache=cache))
        return watch.stop()


def bench(name: str, dtype: str, batch: int, args: argparse.Namespace, device: torch.device) -> list[dict[str, Any]]:
    """Every method on one model; the uncached run comes first and is what the others are compared with."""
    pixels, steps = args.image_size or SIZES.get(name, 256), args.num_sampling_steps
    config = CONFIGS[name].replace(input_size=pixels if name in SIZES else pixels // VAE_STRIDE)
    model = DiT(config).eval()
    for parameter in model.parameters():  # the zero-initialised gates would hide what a cached branch adds
        torch.nn.init.normal_(parameter, std=0.02)
    model = model.to(device, DTYPES[dtype])
    sample(model, ToCa(2, 0.07), 4, batch)  # warm-up
    results: list[dict[str, Any]] = []
    for method in dict.fromkeys(["uncached", *args.methods]):
        run, base = sample(model, METHODS[method], steps, batch), results[0] if results else None
        result = dict(model=name, image_size=pixels, dtype=dtype, batch=batch, method=method, modulation_seconds=run["before"])
        results.append(result | result_of(run, METHODS[method], 2 * batch, model.pos_embed.element_size(), base))
        print_result(f"{name} {pixels} px {dtype} batch {batch}, {method}", results[-1], base)
    return results


def parser() -> Parser:
    p = Parser(prog="toca bench dit", description=__doc__)
    p.add_argument("--model", nargs="+", choices=CONFIGS, default=["DiT-B/2"])
    p.add_argument("--num-sampling-steps", type=whole(1, MOST_STEPS), default=50)
    p.add_argument("--image-size", type=whole(1, MOST_PIXELS), default=None)
    add_flags(p, METHODS)
    return p


def main(argv: Sequence[str] | None = None) -> None:
    args = parser().parse_args(argv)
    run_all(args, FOLDER / "benchmarks", args.model, bench)


if __name__ == "__main__":
    main()
