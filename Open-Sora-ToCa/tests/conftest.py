from pathlib import Path

import pytest
import torch

from toca.runs.programs import reproducible_matmuls

pytest.register_assert_rewrite("golden_modules", "golden_sampling")
reproducible_matmuls()  # before the first product, as programs do
torch.set_num_threads(1)  # on tensors this small a second thread only waits, and on a busy machine it waits long


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of small components with random weights, in the layouts of the published ones."""
    from tiny_parts import save_all

    return save_all(tmp_path_factory.mktemp("components"))
