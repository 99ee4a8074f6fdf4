"""A toy of `toca.training.program`: guesses the mean colour of a picture from its caption. Runs as a program, too."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
from torch import Tensor

from toca.training import program
from toca.training.loop import Loss
from toca.training.program import Draws
from toca.training.world import padded, t5_tokenizer

TOKENIZER = t5_tokenizer()


class Captioner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(len(TOKENIZER), 8), nn.Linear(8, 3)

    def tokenize(self, captions: Sequence[str]) -> Tensor:
        return padded(TOKENIZER, captions)

    def hidden_matrices(self) -> list[nn.Parameter]:
        return [self.out.weight]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embedding(tokens).mean(dim=1))


def loss_of(model: Captioner, draws: Draws) -> Loss:
    def loss(network: nn.Module, step: int) -> Tensor:
        x, tokens = draws(step)
        return (network(tokens) - x.mean(dim=(2, 3))).square().mean()

    return loss


if __name__ == "__main__":
    torch.set_num_threads(1)
    program.run(program.parser(None).parse_args(), Captioner, loss_of)
