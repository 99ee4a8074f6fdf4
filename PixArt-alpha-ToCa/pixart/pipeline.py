"""What all programs that sample share: their flags, prompts, and the networks that make pictures of them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixart.aspect_ratios import Request, nearest_bin, parse_prompt
from pixart.flags import PUBLISHED_TEXT, add_method_flags, add_model_flags, num_steps, planned_run
from pixart.sampler import Sampler
from pixart.spec import CONFIGS
from pixart.t5 import PRECISIONS, T5Embedder, encoder_identity, t5_source
from pixart.text_cache import TextCache, encode_missing
from pixart.weights import PRETRAINED, checkpoint_path, load_model
from toca.cli.flags import method_from
from toca.loading.autoencoder import PUBLISHED, decoder, load_autoencoder
from toca.loading.caption_cleaning import clean_caption
from toca.planning.run import PlannedRun
from toca.runs.pictures import to_uint8
from toca.runs.programs import DTYPES, device_from, reproducible_matmuls
from toca.runs.seeds import item_generators

MAX_CHARACTERS = 4000  # T5 reads about 500; cleaning takes the square of a word's length
MEMORY_ADVICE = "try --t5_device cpu, --t5_precision bf16, --dtype fp16, or a smaller --bs"
VAE = "sd-vae-ft-ema"


@dataclass(frozen=True)
class Prompt:
    """A line of the prompt file. text: what the encoder reads."""

    line: str
    text: str
    size: Request


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of all programs that sample."""
    add_model_flags(parser)
    add_method_flags(parser)
    files = parser.add_argument_group("files", f"paths or hub names; by default what lies in {PRETRAINED.name}/, else the published ones")
    files.add_argument("--model_path", help="checkpoint (.pth, .safetensors)")
    files.add_argument("--ema", action="store_true", help="of a training checkpoint, take the averaged weights")
    files.add_argument("--vae", "--tokenizer_path", dest="vae", help="folder or hub name of the autoencoder (upstream's --tokenizer_path)")
    files.add_argument("--t5_path", help="folder that holds t5-v1_1-xxl, its own folder, or a hub name")
    files.add_argument("--t5_precision", choices=PRECISIONS, default="fp32", help="8bit needs bitsandbytes and a GPU")
    files.add_argument("--t5_device", help="where T5 works, for GPUs too small for it: cpu (default: --device)")
    files.add_argument("--text_cache", default=str(PRETRAINED / "texts"), help="folder that keeps embedded texts")
    parser.add_argument("--dtype", choices=DTYPES, help="of the network (default: fp16 on CUDA, fp32 elsewhere); the rest is fp32")
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument("--seed", type=int, default=0, help="picture i depends on (seed, i) alone")


def read_lines(lines: Sequence[str], image_size: int) -> list[Prompt]:
    """Prompts of lines, checked and cleaned. The models of 256 and 512 pixels are square: there the flags are read and left.

    Raises ValueError that names the line.
    """
    prompts = []
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_CHARACTERS:
            raise ValueError(f"prompt {number} has {len(line)} characters, at most {MAX_CHARACTERS} are read: {line[:40]!r}...")
        try:
            size = parse_prompt(line, image_size)
        except ValueError as error:
            raise ValueError(f"prompt {number}: {error}") from error
        if not CONFIGS[image_size].micro_conditions:
            size = nearest_bin(size.text, 1.0, image_size)
        prompts.append(Prompt(line, clean_caption(size.text), size))
    return prompts


def check_plan(args: argparse.Namespace) -> PlannedRun:
    """The run by its plan, with the text length of the published totals. Raises ValueError on settings that make no sense."""
    args.text_tokens = PUBLISHED_TEXT
    run = planned_run(args)
    _ = run.plan
    return run


def prepare(args: argparse.Namespace) -> torch.device:
    """Check the flags, fill in what they leave open, and name the device. Raises ValueError or OSError before anything is loaded."""
    check_plan(args)
    device = device_from(args.device)
    args.dtype = args.dtype or ("fp16" if device.type == "cuda" else "fp32")
    args.t5_path = t5_source(args.t5_path, PRETRAINED)
    args.vae = args.vae or (str(PRETRAINED / VAE) if (PRETRAINED / VAE).is_dir() else PUBLISHED["ema"])
    args.model_path = str(checkpoint_path(args.image_size, args.model_path))
    reproducible_matmuls()
    return device


class Pipeline:
    """The networks of the flags: PixArt and the autoencoder on the device, T5 only while texts are encoded."""

    def __init__(self, args: argparse.Namespace, device: torch.device, progress: bool = False) -> None:
        self.args, self.device = args, device
        advice = "give its folder or hub name with --vae; `python tools/download.py --vae` fetches the published one"
        self.decode = decoder(load_autoencoder(args.vae, device, advice), device)
        model = load_model(Path(args.model_path), args.image_size, device, DTYPES[args.dtype], args.ema)
        self.sampler = Sampler(model, method_from(args), args.sampling_algo, num_steps(args), args.cfg_scale, progress)
        identity = encoder_identity(args.t5_path, args.t5_precision)
        self.texts = TextCache(Path(args.text_cache), identity, model.config.model_max_length)

    def encode(self, texts: Sequence[str], rank: int = 0, world: int = 1) -> None:
        """Make sure that the texts are embedded on disk. Raises ValueError if T5 is missing or is another one."""
        where = device_from(self.args.t5_device) if self.args.t5_device else self.device
        width = self.sampler.model.config.caption_channels

        def load() -> T5Embedder:
            encoder = T5Embedder(self.args.t5_path, where, self.args.t5_precision, self.texts.length)
            if encoder.width != width:
                raise ValueError(f"{self.args.t5_path} gives features of width {encoder.width}; the model reads {width}")
            return encoder

        encode_missing(self.texts, texts, load, rank=rank, world=world)

    def pictures(self, prompts: Sequence[Prompt], seed: int, indices: Sequence[int]) -> list[np.ndarray]:
        """A picture (H, W, 3) uint8 of each prompt, whose noise comes from (seed, index). Those of one size are sampled together."""
        pictures: dict[int, np.ndarray] = {}
        sizes = {(p.size.height, p.size.width): p.size for p in prompts}
        for key, size in sizes.items():
            together = [i for i, p in enumerate(prompts) if (p.size.height, p.size.width) == key]
            y, mask = self.texts.batch([prompts[i].text for i in together])
            latents = self.sampler.sample(y, mask, size, item_generators(seed, [indices[i] for i in together]))
            pictures |= zip(together, to_uint8(self.decode(latents.float())))
        return [pictures[i] for i in range(len(prompts))]
