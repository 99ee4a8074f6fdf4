import pytest
import torch
from tiny_parts import parts, tiny

__all__ = ["parts", "tiny"]  # fixtures

pytest.register_assert_rewrite("golden_data", "golden_files", "golden_sampling", "golden_tables")
torch.set_num_threads(1)  # on tensors this small a second thread only waits, and on a busy machine it waits long
