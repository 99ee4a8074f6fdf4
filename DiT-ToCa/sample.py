"""Sample a grid of images from a DiT, with or without caching.

    python sample.py --model DiT-mini --ddim-sample --num-sampling-steps 50
    python sample.py --image-size 512 --ddim-sample --num-sampling-steps 50 --fresh-threshold 3 --fresh-ratio 0.07
"""

from __future__ import annotations

import argparse
import time

import torch
from torchvision.utils import save_image

from dit_cli import add_method_flags, add_model_flags, config_from
from sampling import add_sampling_flags, describe, load_decoder, load_model, make_sampler, prepare, print_flops
from toca.runner import item_generators

IMAGENET = (207, 360, 387, 974, 88, 979, 417, 279)  # golden retriever, otter, red panda, geyser, macaw, valley, balloon, arctic fox


def main(args: argparse.Namespace) -> None:
    device = prepare(args, vae="mse")
    config = config_from(args)
    labels = args.class_labels or (IMAGENET if config.num_classes == 1000 else tuple(range(min(config.num_classes, 20))))
    if bad := [label for label in labels if not 0 <= label < config.num_classes]:
        raise SystemExit(f"class labels {bad} are outside 0..{config.num_classes - 1}")
    if args.test_FLOPs:
        with torch.device("meta"):
            from models import DiT

            print_flops(make_sampler(args, DiT(config)), len(labels))
        return
    model = load_model(args, device)
    decode = load_decoder(args.vae, device)
    sampler = make_sampler(args, model, progress=True)
    y = torch.tensor(labels, device=device)

    started = time.perf_counter()
    if args.upstream_stream:
        torch.manual_seed(args.seed)
        size = config.input_size
        latents = sampler.sample_upstream_stream(y, torch.randn(len(y), config.in_channels, size, size, device=device))
    else:
        latents = sampler.sample(y, item_generators(args.seed, range(len(y))))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started

    save_image(decode(latents.float()), args.output, nrow=4, normalize=True, value_range=(-1, 1))
    print(f"{describe(sampler)}\n{len(y)} images in {seconds:.2f} s -> {args.output}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(p)
    add_method_flags(p)
    add_sampling_flags(p, vae="mse")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--class-labels", type=int, nargs="+", default=None, help="one image for each")
    p.add_argument("--output", default="sample.png")
    return p


if __name__ == "__main__":
    main(parser().parse_args())
