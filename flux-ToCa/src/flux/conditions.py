"""What fill, control and redux condition a picture on: files to tensors, edges, and packed latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from flux.modules.autoencoder import AutoEncoder
from flux.pipeline import Condition
from flux.sampler import pack, pack_mask

Annotator = Callable[[Tensor], Tensor]  # a picture (1, 3, H, W) in [-1, 1] to a map of the same shape
LOW, HIGH = 100, 200  # thresholds of the gradient, of levels 0..255
TAN_22_5 = 13573 / 2**15


def to_tensor(picture: Image.Image) -> Tensor:
    """(1, C, H, W) in [0, 1]."""
    array = np.array(picture, dtype=np.float32) / 255
    return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1)[None]


def fill_condition(picture: Tensor, mask: Tensor) -> Condition:
    """picture (1, 3, H, W) in [-1, 1]; mask (1, 1, H, W), 1 where it is to be painted. Latents of the rest, and the mask: 320 channels."""

    def condition(ae: AutoEncoder) -> Tensor:
        device = next(ae.parameters()).device
        latents = ae.encode((picture * (1 - mask)).to(device))
        return torch.cat((pack(latents), pack_mask(mask.to(device))), dim=-1)

    return torch.no_grad()(condition)


def control_condition(picture: Tensor, annotate: Annotator) -> Condition:
    """picture (1, 3, H, W) in [-1, 1]. Latents of its map: 64 channels."""

    def condition(ae: AutoEncoder) -> Tensor:
        return pack(ae.encode(annotate(picture).to(next(ae.parameters()).device)))

    return torch.no_grad()(condition)


def canny(picture: Tensor, low: int = LOW, high: int = HIGH) -> Tensor:
    """Edges of a picture (1, 3, H, W) in [-1, 1] by Canny's method, white (1) on black (-1), on three channels.

    As OpenCV's: 3 x 3 Sobel, the channel of the largest |dx| + |dy|, maxima along the gradient, edges from `high` on followed down to
    `low`.
    """
    levels = F.pad((127.5 * (picture + 1)).round(), (1, 1, 1, 1), mode="replicate")
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    kernels = torch.stack((torch.outer(smooth, slope), torch.outer(slope, smooth)))[:, None]
    dx, dy = F.conv2d(levels.transpose(0, 1), kernels).unbind(1)  # each (3, H, W)
    best = (dx.abs() + dy.abs()).argmax(dim=0, keepdim=True)
    dx, dy = dx.gather(0, best)[0], dy.gather(0, best)[0]
    size = F.pad(dx.abs() + dy.abs(), (1, 1, 1, 1))
    height, width = dx.shape

    def near(row: int, column: int) -> Tensor:
        return size[1 + row : 1 + row + height, 1 + column : 1 + column + width]

    here, x, y = near(0, 0), dx.abs(), dy.abs()
    flat, steep = y < TAN_22_5 * x, y > (TAN_22_5 + 2) * x
    along_x = (here > near(0, -1)) & (here >= near(0, 1))
    along_y = (here > near(-1, 0)) & (here >= near(1, 0))
    falling = (here > near(-1, -1)) & (here > near(1, 1))
    rising = (here > near(-1, 1)) & (here > near(1, -1))
    diagonal = torch.where(dx * dy < 0, rising, falling)
    maxima = torch.where(flat, along_x, torch.where(steep, along_y, diagonal)) & (here > low)
    edges = maxima & (here > high)
    while True:
        grown = F.max_pool2d(edges[None].float(), 3, stride=1, padding=1)[0].bool() & maxima
        if torch.equal(grown, edges):
            return (2 * edges.float() - 1).expand(1, 3, -1, -1)
        edges = grown


def depth_annotator(source: str) -> Annotator:
    """Depths by a model of transformers from a folder or hub name. Raises ValueError if it cannot be loaded."""
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    try:
        processor, model = AutoImageProcessor.from_pretrained(source), AutoModelForDepthEstimation.from_pretrained(source).eval()
    except (OSError, ValueError) as error:
        instead = "give a folder with --annotator, or a finished map with --img_is_map"
        raise ValueError(f"no depth model {source}: {instead} ({str(error).strip().splitlines()[0]})") from error

    @torch.no_grad()
    def annotate(picture: Tensor) -> Tensor:
        inputs = processor(rearrange(127.5 * (picture + 1), "1 c h w -> h w c").round().to(torch.uint8).numpy(), return_tensors="pt")
        depth = model(**inputs).predicted_depth[:, None]
        depth = F.interpolate(depth, picture.shape[-2:], mode="bicubic", antialias=True)
        return (2 * (depth / depth.max()).clamp(0, 1) - 1).repeat(1, 3, 1, 1)

    return annotate
