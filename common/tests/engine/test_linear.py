import pytest
import torch
import torch.nn as nn

from toca.engine.linear import linear_part


@pytest.fixture(params=["plain", "no bias", "adapter"])
def linear(request):
    torch.manual_seed(0)
    some = nn.Linear(6, 10, bias=request.param != "no bias")
    if request.param == "adapter":
        some.lora_A, some.lora_B, some.scale = nn.Linear(6, 2, bias=False), nn.Linear(2, 10), 0.5
    return some


def whole(linear, x):
    y = linear(x)
    return y + linear.scale * linear.lora_B(linear.lora_A(x)) if hasattr(linear, "lora_A") else y


@pytest.mark.parametrize("rows", [slice(None), slice(4), slice(3, 7)])
def test_some_outputs(linear, rows):
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(linear_part(linear, x, rows), whole(linear, x)[..., rows])


@pytest.mark.parametrize("cut", [1, 4])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 7)])
def test_parts_by_inputs_add_up_if_one_has_the_bias(linear, cut, rows):
    x = torch.randn(3, 6)
    first = linear_part(linear, x[:, :cut], rows, inputs=slice(cut))
    second = linear_part(linear, x[:, cut:], rows, inputs=slice(cut, None), bias=False)
    torch.testing.assert_close(first + second, whole(linear, x)[:, rows])
