"""Texts and noise to videos: the networks of a run, and the clips of a long video one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from opensora.datasets.utils import read_from_path
from opensora.datasets.write_video import frames_of
from opensora.flags import RunSettings
from opensora.items import Item
from opensora.models.stdit.stdit3 import STDiT3
from opensora.models.text_encoder.t5 import T5Encoder
from opensora.models.vae import VideoAutoencoderPipeline
from opensora.registry import MODELS, SCHEDULERS, build_module
from opensora.sampler import sample_latents
from opensora.schedulers import RFLOW
from opensora.spec import STDiT3Config
from opensora.utils.mask_strategy import Group, apply_mask_strategy, continued, dframe_to_frame, frames_to_read
from toca.engine.token_shards import WHOLE, Whole
from toca.runs.programs import DTYPES
from toca.runs.seeds import item_seed

LATENT_CHANNELS = 4
SHARED_SEED = 1024  # of the published programs, whatever --seed says


@dataclass(frozen=True)
class Pipeline:
    """The networks of a run, and how it is made.

    texts: the encoded texts of its items, (L, C) each.
    shards: where a video's tokens live, if several processes share it; all of them generate the same items.
    """

    model: STDiT3
    vae: VideoAutoencoderPipeline
    scheduler: RFLOW
    settings: RunSettings
    device: torch.device
    texts: Mapping[str, Tensor]
    shards: Whole = WHOLE
    progress: bool = False

    def generate(self, items: Sequence[Item]) -> list[Tensor]:
        """Videos (T, H, W, 3) uint8 on the CPU of a batch of items; none depends on the others.

        Raises ValueError or OSError if a reference cannot be read.
        """
        references = [[self.encode_reference(item, i) for i in range(len(item.references))] for item in items]
        groups = [list(item.groups) for item in items]
        clips: list[list[Tensor]] = [[] for _ in items]
        clip = None
        for loop in range(self.settings.loops.num):
            if clip is not None:
                self.take_over(items, loop, clip, references, groups)
            clip = self.clip(items, loop, references, groups)
            skipped = dframe_to_frame(self.settings.loops.length) if loop else 0
            for made, pixels in zip(clips, clip):
                made.append(frames_of(pixels[:, skipped:]))
        return [torch.cat(made) for made in clips]

    def clip(self, items: Sequence[Item], loop: int, references: list[list[Tensor]], groups: list[list[Group]]) -> Tensor:
        """Pixels (n, 3, T, H, W) on the CPU, of the clip `loop` of every item."""
        z = torch.stack([self.noise(item, loop) for item in items])
        mask = apply_mask_strategy(z, references, groups, loop, self.settings.loops.align)
        edits = [self.generator(item, loop, "edit") for item in items]
        y, text_mask = self.text(items, loop)
        z = sample_latents(
            self.model,
            self.scheduler,
            self.settings.planned(y.shape[2], self.model.config),
            z.to(self.device),
            y,
            text_mask,
            size=self.settings.size,
            fps=self.settings.fps,
            seeds=[item_seed(self.seed_of(item), loop) for item in items],
            mask=mask,
            noise=lambda step, item: normal(edits[item])(tuple(z.shape[1:])),
            shards=self.shards,
            progress=self.progress,
        )
        return self.vae.decode(z, self.settings.size.num_frames, device="cpu")

    def text(self, items: Sequence[Item], loop: int) -> tuple[Tensor, Tensor]:
        """Encoded texts (n, 1, L, C) of the clip, and the mask (n, L) of their tokens; L is the longest."""
        texts = [self.texts[item.text(loop)] for item in items]
        lengths = torch.tensor([len(text) for text in texts])
        y = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)[:, None].to(self.device)
        return y, (torch.arange(y.shape[2]) < lengths[:, None]).to(self.device)

    def encode_reference(self, item: Item, number: int) -> Tensor:
        """Latents (C, T, H, W) of a reference, of the frames that are used."""
        most = frames_to_read(item.groups, number, self.settings.loops.align)
        pixels = read_from_path(item.references[number], (self.settings.size.height, self.settings.size.width), most)
        return self.encode(pixels, self.generator(item, number, "reference"))

    def encode(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        return self.vae.encode(pixels[None], normal(generator))[0].float().cpu()

    def take_over(self, items: Sequence[Item], loop: int, clip: Tensor, references: list[list[Tensor]], groups: list[list[Group]]) -> None:
        """Give the clip before to every item, as one more reference that the clip `loop` begins with."""
        for i, item in enumerate(items):
            references[i].append(self.encode(clip[i], self.generator(item, loop, "clip")))
            groups[i] = continued(groups[i], loop, len(references[i]) - 1, self.settings.loops.length, self.settings.loops.edit)

    def noise(self, item: Item, loop: int) -> Tensor:
        """Standard normal latents (C, T, H, W)."""
        shape = (LATENT_CHANNELS, *self.settings.size.latent)
        if self.settings.shared_noise:
            return torch.randn(shape, generator=torch.Generator().manual_seed(SHARED_SEED + item.k))
        return normal(self.generator(item, loop, "noise"))(shape)

    def seed_of(self, item: Item) -> int:
        return item_seed(item_seed(self.settings.seed, item.index), item.k)

    def generator(self, item: Item, number: int, purpose: str) -> torch.Generator:
        """A stream of its own for everything that an item draws, so that nothing drawn changes what else is."""
        stream = ("noise", "edit", "reference", "clip").index(purpose)
        return torch.Generator().manual_seed(item_seed(item_seed(self.seed_of(item), stream), number))


def normal(generator: torch.Generator) -> Callable[[tuple[int, ...]], Tensor]:
    return lambda shape: torch.randn(shape, generator=generator)


def encode_texts(encoder: T5Encoder, texts: Sequence[str], batch_size: int = 8) -> dict[str, Tensor]:
    """Every text once, (L, C) with L its tokens."""
    distinct, encoded = list(dict.fromkeys(texts)), {}
    for first in range(0, len(distinct), batch_size):
        batch = distinct[first : first + batch_size]
        out = encoder.encode(batch)
        for text, states, tokens in zip(batch, out["y"][:, 0], out["mask"].sum(dim=1).tolist(), strict=True):
            encoded[text] = states[:tokens].float().cpu()
    return encoded


def load_pipeline(
    settings: RunSettings,
    texts: Sequence[str],
    device: torch.device,
    shards: Callable[[STDiT3Config], Whole] = lambda config: WHOLE,
    progress: bool = False,
) -> Pipeline:
    """The networks of a run on the device. The text encoder, the largest of them, is let go before the others come.

    texts: all that the run reads. shards: of the model.
    """
    parts, dtype = settings.parts, DTYPES[settings.dtype]
    encoder = build_module(parts["text_encoder"], MODELS, device=device)
    encoded = encode_texts(encoder, texts)
    del encoder
    vae = build_module(parts["vae"], MODELS).to(device, torch.float32 if dtype is torch.float16 else dtype)  # it overflows in fp16
    model = build_module(parts["model"], MODELS).to(device, dtype).eval().requires_grad_(False)
    scheduler = build_module(parts["scheduler"], SCHEDULERS)
    return Pipeline(model, vae, scheduler, settings, device, encoded, shards(model.config), progress)
