import pytest
import torch

from toca.engine.attention import attention, attention_with_mass

DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


def by_hand(q, k, v):
    weights = (q.double() @ k.double().mT / q.shape[-1] ** 0.5).softmax(dim=-1)
    return weights @ v.double(), weights.mean(dim=1).sum(dim=1)


def random_qkv(*shape, device="cpu", dtype=torch.float32, spread=1.0):
    torch.manual_seed(0)
    rows, heads, tokens, d = shape
    packed = torch.randn(rows, tokens, 3, heads, d) * torch.tensor([spread, spread, 1.0])[:, None, None]
    return packed.permute(2, 0, 3, 1, 4).to(device, dtype)  # views of one projection, as blocks pass them


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(1, 1, 1, 4), (2, 3, 7, 5), (3, 2, 37, 8), (1, 5, 257, 16), (2, 2, 600, 8), (1, 1, 1031, 4)])
def test_output_and_mass_equal_those_of_an_explicit_map(shape, device):
    """From one token to maps that need several tiles, odd counts included."""
    q, k, v = random_qkv(*shape, device=device, spread=2.0)
    out, mass = attention_with_mass(q, k, v)
    expected, received = by_hand(q, k, v)
    torch.testing.assert_close(out.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mass.double(), received, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(attention(q, k, v).double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mass.sum(dim=1), torch.full_like(mass[:, 0], shape[2]))  # every query gives one


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mass_is_float32_and_close_in_reduced_precision(dtype):
    q, k, v = random_qkv(2, 2, 300, 8, dtype=dtype)
    out, mass = attention_with_mass(q, k, v)
    expected, received = by_hand(q, k, v)
    assert out.dtype == dtype and mass.dtype == torch.float32
    torch.testing.assert_close(out.double(), expected, atol=2e-2, rtol=0)
    torch.testing.assert_close(mass.double(), received, atol=2e-2, rtol=2e-2)


def test_large_logits_stay_finite():
    q, k, v = random_qkv(1, 1, 64, 8, spread=100.0)
    out, mass = attention_with_mass(q, k, v)
    assert out.isfinite().all() and mass.isfinite().all()


@pytest.mark.parametrize("rows", [1, 3])
def test_a_row_does_not_depend_on_its_batch(rows):
    q, k, v = random_qkv(4, 2, 50, 8)
    out, mass = attention_with_mass(q, k, v)
    some_out, some_mass = attention_with_mass(q[:rows], k[:rows], v[:rows])
    assert torch.equal(some_out, out[:rows]) and torch.equal(some_mass, mass[:rows])


def test_inputs_are_left_alone():
    qkv = random_qkv(2, 2, 20, 4)
    before = qkv.clone()
    attention_with_mass(*qkv)
    assert torch.equal(qkv, before)
