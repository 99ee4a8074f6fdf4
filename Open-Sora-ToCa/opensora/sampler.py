"""One cached run: from the noise of a clip to its latents. The one place that opens a `Cache`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from opensora.datasets.aspect import Size
from opensora.models.stdit.stdit3 import STDiT3
from opensora.schedulers.rf import RFLOW, Callback, Noise
from toca.engine.cache import Cache
from toca.engine.token_shards import WHOLE, Whole
from toca.planning.run import PlannedRun
from toca.runs.pictures import finite


def sample_latents(
    model: STDiT3,
    scheduler: RFLOW,
    run: PlannedRun,
    z: Tensor,
    y: Tensor,
    text_mask: Tensor,
    *,
    size: Size,
    fps: int,
    seeds: Sequence[int] | None = None,
    mask: Tensor | None = None,
    noise: Noise | None = None,
    shards: Whole = WHOLE,
    callback: Callback | None = None,
    progress: bool = False,
) -> Tensor:
    """Latents (n, C, T, H, W) in float32 of a clip for every text, from noise z of that shape.

    y, text_mask: encoded texts (n, 1, L, D) and the mask (n, L) of their tokens.
    size, fps: what the model is told of the clip.
    seeds: one per clip, for random choices of tokens.
    mask, noise, callback, progress: as `RFLOW.sample` has them.
    shards: where the clips' tokens live, if several processes share them.
    Raises ValueError if the latents are not finite.
    """
    y_null = model.y_embedder.y_embedding[: y.shape[2]].expand_as(y).to(y)
    told = dict(fps=fps, height=size.height, width=size.width)
    model_args = {name: torch.full((len(z),), float(value), device=z.device) for name, value in told.items()}
    with Cache(run.spec, run.method, run.num_steps, seeds=seeds, shards=shards) as cache:
        z = scheduler.sample(
            model,
            z,
            y,
            y_null,
            num_frames=size.num_frames,
            height=size.height,
            width=size.width,
            model_args=dict(mask=text_mask, shards=shards, **model_args),
            mask=mask,
            noise=noise,
            cache=cache,
            callback=callback,
            progress=progress,
        )
    return finite(z)
