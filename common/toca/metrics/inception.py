"""The Inception network of FID (2015-12-05), through torch-fidelity: the features that ADM's evaluator takes of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
SOURCE = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{WEIGHTS}"
POOL, SPATIAL_CHANNELS = 2048, 7


class Features(NamedTuple):
    """Of B pictures.

    pool: (B, 2048), of FID, precision and recall.
    spatial: (B, 17 * 17 * 7), of sFID.
    probabilities: (B, 1008), of the Inception Score.
    """

    pool: Tensor
    spatial: Tensor
    probabilities: Tensor


class Inception:
    """Pictures (B, H, W, 3) uint8 -> `Features`, float32 on the network's device."""

    def __init__(self, weights: str | Path | Mapping[str, Tensor], device: torch.device) -> None:
        """weights: torch-fidelity's file, which is the TensorFlow graph's weights, or its tensors. Resizing is TensorFlow's, too.

        Raises ValueError if torch-fidelity or the file is missing, or the file is another one; no code of it runs.
        """
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ValueError("FID needs torch-fidelity: pip install 'toca-engine[metrics]'") from error
        state = dict(weights) if isinstance(weights, Mapping) else _read(Path(weights))
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            plain = Path(folder) / WEIGHTS
            torch.save(state, plain)  # the package reads a path, and would run what is in it
            try:
                self.network: nn.Module = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(plain))
            except RuntimeError as error:
                raise ValueError(f"{weights} holds another network than {WEIGHTS}: {str(error).splitlines()[0]}") from error
        self.network.to(device)
        self.device = device
        self._spatial: Tensor | None = None
        self.network.Mixed_6d.register_forward_hook(self._keep_spatial)

    def _keep_spatial(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._spatial = output[:, :SPATIAL_CHANNELS]  # of its first branch, `mixed_6/conv` in TensorFlow

    @torch.no_grad()
    def __call__(self, pictures: NDArray[np.uint8]) -> Features:
        x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).to(self.device)
        pool, logits = self.network(x)
        assert self._spatial is not None
        spatial = self._spatial.permute(0, 2, 3, 1).flatten(1)  # the order of TensorFlow's numbers, which statistics in files follow
        return Features(pool, spatial, logits.softmax(dim=1))


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(f"there are no Inception weights at {path}: fetch {SOURCE} and name the file with --inception")
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # an unpickler that meets arbitrary bytes raises whatever they lead to
        raise ValueError(f"{path} is no file of weights; {WEIGHTS} is wanted, from {SOURCE}") from error
