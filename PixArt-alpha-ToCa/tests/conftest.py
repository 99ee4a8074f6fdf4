import pytest
import torch

pytest.register_assert_rewrite("golden_data", "golden_files", "golden_sampling")
torch.set_num_threads(1)  # on tensors this small a second thread only waits, and on a busy machine it waits long
