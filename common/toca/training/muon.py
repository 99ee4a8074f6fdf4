"""Muon (Jordan et al. 2024) in float32, for training small models on machines where torch's bfloat16 version is slow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
import torch.nn as nn
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a, b, c of the quintic a x + b x^3 + c x^5 that drives singular values towards 1


def orthogonalise(g: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrix to each of g (M, rows, cols), approximately: singular values within about 0.7..1.2."""
    tall = g.shape[-2] > g.shape[-1]
    x = g.mT if tall else g
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, scaled to the size of AdamW's (Liu et al. 2025): 0.2 lr sqrt(max(rows, cols))."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(params, dict(lr=lr, momentum=momentum))

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for shape, params in by_shape.items():
                update = orthogonalise(torch.stack([self._nesterov(p, group["momentum"]) for p in params]))
                for p, u in zip(params, update):
                    p.add_(u, alpha=-0.2 * group["lr"] * max(shape) ** 0.5)

    def _nesterov(self, p: nn.Parameter, momentum: float) -> Tensor:
        buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(buffer, momentum)


def optimisers(model: nn.Module, matrices: Iterable[nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
    """Muon for `matrices` (none: AdamW alone), AdamW without weight decay for all other parameters that are trained."""
    matrices = list(matrices)
    taken = {id(p) for p in matrices}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in taken]
    adamw = torch.optim.AdamW(rest, lr=lr, weight_decay=0)
    return [adamw, Muon(matrices, lr=lr)] if matrices else [adamw]
