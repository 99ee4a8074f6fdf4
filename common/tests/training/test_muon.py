from __future__ import annotations

import pytest
import torch

from toca.training.muon import Muon, optimisers, orthogonalise


@pytest.mark.parametrize("shape", [(2, 8, 8), (3, 6, 20), (1, 20, 6)])
def test_singular_values_are_driven_towards_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.min() > 0.5 and values.max() < 1.3


def test_it_keeps_the_singular_vectors():
    torch.manual_seed(0)
    u, _ = torch.linalg.qr(torch.randn(6, 6))
    v, _ = torch.linalg.qr(torch.randn(6, 6))
    out = orthogonalise((u * torch.linspace(1, 2, 6)) @ v.mT)
    inner = u.mT @ out @ v
    torch.testing.assert_close(inner, torch.diag(inner.diagonal()), atol=1e-4, rtol=0)


def test_a_step_is_as_large_as_adamw_s():
    torch.manual_seed(0)
    p = torch.nn.Parameter(torch.zeros(16, 64))
    p.grad = torch.randn(16, 64)
    Muon([p], lr=0.1).step()
    assert 0.5 < p.square().mean().sqrt() / (0.2 * 0.1) < 1.3  # 0.2 lr sqrt(64) times a matrix of singular values about 1


def test_it_learns_a_matrix():
    torch.manual_seed(0)
    p, wanted = torch.nn.Parameter(torch.zeros(8, 8)), torch.randn(8, 8)
    opt = Muon([p], lr=0.05)
    for _ in range(200):
        (p - wanted).square().sum().backward()
        opt.step()
        opt.zero_grad()
    assert (p - wanted).square().mean() < 0.05


def test_every_parameter_belongs_to_one_optimiser():
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3).requires_grad_(False))
    adamw, muon = optimisers(model, [model[0].weight], 1e-3)
    assert [p.shape for p in adamw.param_groups[0]["params"]] == [(3,)]
    assert muon.param_groups[0]["params"] == [model[0].weight]
    assert len(optimisers(model, [], 1e-3)) == 1
