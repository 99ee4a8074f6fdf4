"""With random weights: which numbers come out, in which order, whatever the batch. Published values need the real weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as fidelity

from toca.metrics.inception import Inception

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    network = fidelity.FeatureExtractorInceptionV3.__new__(fidelity.FeatureExtractorInceptionV3)
    state: dict[str, Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:  # its constructor insists on a file of weights: take its own random ones
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *args, **kwargs: {})
        patch.setattr(nn.Module, "load_state_dict", lambda self, given: state.update(self.state_dict()))
        torch.manual_seed(0)
        network.__init__("inception", ["2048"])
    return {key: value.clone() for key, value in state.items()}


@pytest.fixture(scope="module")
def inception(weights: dict[str, Tensor]) -> Inception:
    return Inception(weights, CPU)


def pictures(number: int, side: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, side, side, 3), dtype=np.uint8)


def test_features_of_a_batch_are_those_of_single_pictures(inception: Inception) -> None:
    together = inception(pictures(3))
    assert [tuple(part.shape) for part in together] == [(3, 2048), (3, 2023), (3, 1008)]
    alone = [inception(pictures(3)[i : i + 1]) for i in range(3)]
    for place, part in enumerate(together):
        torch.testing.assert_close(torch.cat([one[place] for one in alone]), part, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(together.probabilities.sum(dim=1), torch.ones(3))


def test_spatial_features_are_seven_channels_of_every_place_in_tensorflows_order(inception: Inception) -> None:
    seen = {}
    handle = inception.network.Mixed_6d.branch1x1.register_forward_hook(lambda m, i, out: seen.update(out=out))
    spatial = inception(pictures(1)).spatial.unflatten(1, (17, 17, 7))
    handle.remove()
    assert torch.equal(spatial[0, 3, 5], seen["out"][0, :7, 3, 5])
    assert not torch.equal(spatial[0, 3, 5], spatial[0, 5, 3])


def test_probabilities_leave_the_bias_out(inception: Inception) -> None:
    features = inception(pictures(2))
    torch.testing.assert_close(features.probabilities, (features.pool @ inception.network.fc.weight.mT).softmax(dim=1))


def test_files_that_are_missing_or_foreign(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"no Inception weights at .*fetch https://github.com/toshas.*--inception"):
        Inception(tmp_path / "nowhere.pth", CPU)
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match=r"text.pth is no file of weights; weights-inception-2015"):
        Inception(tmp_path / "text.pth", CPU)
    with pytest.raises(ValueError, match="another network than weights-inception-2015"):
        Inception({"a": torch.zeros(1)}, CPU)
    torch.save(weights, tmp_path / "right.pth")
    assert Inception(tmp_path / "right.pth", CPU)(pictures(1)).pool.shape == (1, 2048)
