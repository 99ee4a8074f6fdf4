"""What transformers share: patches there and back, position tables, sinusoids, heads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from toca.nn.layers import PatchEmbed, SelfAttention, TimestepEmbedder, sincos_2d, unpatchify


def test_the_position_table_puts_the_column_first() -> None:
    table = sincos_2d(8, np.arange(2), np.array([0.0, 1.5, 3.0]))
    for token, (row, column) in enumerate((row, column) for row in range(2) for column in (0.0, 1.5, 3.0)):
        expected = [f(position * w) for position in (column, row) for f in (math.sin, math.cos) for w in (1.0, 0.01)]
        assert table[token] == pytest.approx(expected)


@torch.no_grad()
def test_patches_return_to_their_places() -> None:
    """An embedding whose width is a patch's numbers, channel fastest, taken back."""
    embed, picture = PatchEmbed(2, 3, 12), torch.randn(2, 3, 4, 10)
    embed.proj.bias.zero_()
    embed.proj.weight.copy_(torch.eye(12).view(12, 2, 2, 3).permute(0, 3, 1, 2))
    assert torch.equal(unpatchify(embed(picture), (2, 5), 2), picture)


def test_sinusoids_begin_with_cosines() -> None:
    features = TimestepEmbedder.timestep_embedding(torch.tensor([0.0, 949.05]), 6)
    angles = [949.05 * 10_000 ** (-k / 3) for k in range(3)]
    assert features[0].tolist() == [1, 1, 1, 0, 0, 0]
    assert features[1].tolist() == pytest.approx([*map(math.cos, angles), *map(math.sin, angles)], abs=1e-3)


@torch.no_grad()
def test_attention_mixes_tokens_and_keeps_rows_apart() -> None:
    attn, x = SelfAttention(12, 3), torch.randn(2, 5, 12)
    order = torch.tensor([3, 1, 4, 0, 2])
    torch.testing.assert_close(attn(x[:, order]), attn(x)[:, order])
    torch.testing.assert_close(attn(x[:1]), attn(x)[:1])
