import torch

from toca.nn.rotary import apply_rope, rotations


def test_neighbouring_pairs_are_turned():
    angles = torch.tensor([[0.0, 0.0], [torch.pi / 2, 0.3]])
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 1.0, 0.0]])
    expected = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-2.0, 1.0, torch.cos(torch.tensor(0.3)), torch.sin(torch.tensor(0.3))]])
    torch.testing.assert_close(apply_rope(x, rotations(angles)), expected)


def test_half_precision_is_rotated_in_single():
    x, pe = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16(), rotations(torch.rand(5, 4))
    assert torch.equal(apply_rope(x, pe), apply_rope(x.float(), pe).bfloat16())
