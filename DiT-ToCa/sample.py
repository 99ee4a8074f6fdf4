"""Sample a grid of images from a DiT, with or without caching.

python sample.py --model DiT-mini --ddim-sample --num-sampling-steps 50
python sample.py --preset toca3-ddim50 --class-labels 207 360
python sample.py --image-size 512 --ddim-sample --num-sampling-steps 50 --fresh-threshold 3 --fresh-ratio 0.07
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from PIL import Image
from torchvision.utils import save_image

from dit.flags import add_method_flags, add_model_flags, config_from, parse
from dit.pipeline import add_sampling_flags, check_plan, describe, load_decoder, load_model, make_sampler, prepare, print_flops
from dit.upstream_stream import UpstreamStream
from toca.runs.files import atomic_path
from toca.runs.programs import program_errors
from toca.runs.seeds import item_generators

IMAGENET = (207, 360, 387, 974, 88, 979, 417, 279)  # golden retriever, otter, red panda, geyser, macaw, valley, balloon, arctic fox


def class_labels(args: argparse.Namespace) -> tuple[int, ...]:
    """The labels of the flags, or eight well-known ImageNet classes, or the first twenty. Raises ValueError if one is out of range."""
    classes = config_from(args).num_classes
    labels = tuple(args.class_labels or (IMAGENET if classes == 1000 else range(min(classes, 20))))
    if bad := [label for label in labels if not 0 <= label < classes]:
        raise ValueError(f"class labels {bad} are outside 0..{classes - 1}")
    return labels


@program_errors()
def main(args: argparse.Namespace) -> None:
    device = prepare(args, vae="mse")
    labels = class_labels(args)
    check_plan(args)
    if args.test_FLOPs:
        return print_flops(args, len(labels))
    if Path(args.output).suffix.lower() not in Image.registered_extensions():
        raise ValueError(f"--output {args.output}: not the name of a picture, try sample.png")
    sampler = make_sampler(args, load_model(args, device), progress=True)
    decode = load_decoder(args.vae, device)
    y = torch.tensor(labels, device=device)

    started = time.perf_counter()
    if args.upstream_stream:
        latents = UpstreamStream(sampler, args.seed, len(y), device, always_guided=True).sample(labels=y)
    else:
        latents = sampler.sample(y, item_generators(args.seed, range(len(y))))
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - started

    with atomic_path(args.output) as part:
        save_image(decode(latents.float()), part, nrow=4, normalize=True, value_range=(-1, 1))
    print(f"{describe(sampler)}\n{len(y)} images in {seconds:.2f} s -> {args.output}")


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_flags(p)
    add_method_flags(p)
    add_sampling_flags(p, vae="mse")
    p.add_argument("--seed", type=int, default=0, help="image i depends on (seed, i) alone")
    p.add_argument("--class-labels", type=int, nargs="+", default=None, help="one image for each")
    p.add_argument("--output", default="sample.png")
    return p


if __name__ == "__main__":
    main(parse(parser()))
