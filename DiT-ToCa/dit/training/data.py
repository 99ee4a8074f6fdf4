"""Training batches: folders of images, or procedural scenes. Batch n of a run is the same whether or not the run was interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dit.training.flags import SCENES
from toca import shapeworld
from toca.runs.seeds import item_seed

Batches = Iterator[tuple[Tensor, Tensor]]  # pictures (batch, 3, size, size) in [-1, 1], labels (batch,)


@dataclass(frozen=True)
class Split:
    """The share of one process: `batch` pictures of every global batch of batch * world."""

    batch: int
    rank: int = 0
    world: int = 1
    seed: int = 0

    def steps_per_epoch(self, num: int) -> int:
        """Whole global batches in `num` pictures."""
        return num // (self.batch * self.world)


def to_tensor(pictures: np.ndarray) -> Tensor:
    """(..., H, W, 3) uint8 -> (..., 3, H, W) in [-1, 1]."""
    return torch.tensor(np.ascontiguousarray(pictures)).movedim(-1, -3).float() / 127.5 - 1


class ShapeWorld:
    """Endless procedural scenes; picture n of the run is the same whatever the batch size and the number of processes."""

    num_classes = len(shapeworld.CLASSES)
    steps_per_epoch = None

    def __init__(self, size: int, split: Split) -> None:
        self.size, self.split = size, split

    def batches(self, first_step: int = 0) -> Batches:
        step, s = first_step, self.split
        while True:
            first = (step * s.world + s.rank) * s.batch
            pictures, labels = shapeworld.batch(s.seed, np.arange(first, first + s.batch), size=self.size)
            yield to_tensor(pictures), torch.from_numpy(labels)
            step += 1


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre crop as in ADM: halve with a box filter while that keeps the short side at least `size`, resize bicubically, crop."""
    while min(image.size) >= 2 * size:
        image = image.resize(tuple(side // 2 for side in image.size), resample=Image.BOX)
    scale = size / min(image.size)
    image = image.resize(tuple(round(side * scale) for side in image.size), resample=Image.BICUBIC)
    left, top = ((side - size) // 2 for side in image.size)
    return image.crop((left, top, left + size, top + size))


class Pictures(Dataset):
    """Cropped pictures by (epoch, index); whether one is mirrored depends on seed, epoch and index alone."""

    def __init__(self, path: str, size: int, seed: int) -> None:
        from torchvision.datasets import ImageFolder

        try:
            self.folder = ImageFolder(path)
        except FileNotFoundError as error:
            raise ValueError(f"--data-path {path}: wanted a folder of pictures for every class ({error})") from error
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return len(self.folder.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        path, label = self.folder.samples[index]
        try:
            picture = np.asarray(center_crop(self.folder.loader(path), self.size))
        except (OSError, ValueError, SyntaxError) as error:  # what Pillow says of files that are damaged or no pictures
            raise ValueError(f"{path} cannot be read as a picture: {error}") from None
        mirrored = item_seed(self.seed, epoch * len(self) + index) % 2
        return to_tensor(picture[:, ::-1] if mirrored else picture), label


class Shuffled:
    """Endless lists of (epoch, index), one per step from `first_step`: every epoch another permutation, cut into whole global batches."""

    def __init__(self, num: int, split: Split, first_step: int) -> None:
        self.num, self.split, self.first_step = num, split, first_step

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        s, steps_per_epoch = self.split, self.split.steps_per_epoch(self.num)
        epoch, step = divmod(self.first_step, steps_per_epoch)
        while True:
            order = torch.randperm(self.num, generator=torch.Generator().manual_seed(item_seed(s.seed, epoch))).tolist()
            for n in range(step, steps_per_epoch):
                first = (n * s.world + s.rank) * s.batch
                yield [(epoch, index) for index in order[first : first + s.batch]]
            epoch, step = epoch + 1, 0


class ImageFolderData:
    """A folder with one sub-folder of images per class, reshuffled per epoch. Raises ValueError if it holds less than one global batch."""

    def __init__(self, path: str, size: int, split: Split, workers: int) -> None:
        self.pictures, self.split, self.workers = Pictures(path, size, split.seed), split, workers
        self.num_classes = len(self.pictures.folder.classes)
        self.steps_per_epoch = split.steps_per_epoch(len(self.pictures))
        if not self.steps_per_epoch:
            raise ValueError(f"{path} holds {len(self.pictures)} images: fewer than one global batch of {split.batch * split.world}")

    def batches(self, first_step: int = 0) -> Batches:
        order = Shuffled(len(self.pictures), self.split, first_step)
        own = torch.Generator()  # for the workers' seeds, so that starting them leaves training's generator alone
        pin = torch.cuda.is_available()
        try:
            yield from DataLoader(self.pictures, batch_sampler=order, num_workers=self.workers, pin_memory=pin, generator=own)
        except ValueError as error:  # of a worker, with its traceback
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


Data = ShapeWorld | ImageFolderData


def open_data(path: str, size: int, split: Split, workers: int) -> Data:
    """`shapeworld`, or the image folder at `path`."""
    return ShapeWorld(size, split) if path == SCENES else ImageFolderData(path, size, split, workers)
