from dataclasses import replace

import pytest
import torch
from toy import WIDTH, attn, mlp, spec, stack

from toca import stream as module
from toca.cache import Cache
from toca.methods import ToCa
from toca.stream import MOST, Stream


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def filled(terms, runs=3, tokens=12):
    """A stream, and its sum by hand."""
    x = draw(2, tokens, 4)
    stream, total = Stream(x), x.clone()
    for term in range(terms):
        y, gate = draw(2, tokens, 4, seed=1 + term), draw(2, (1, runs)[term % 2], 4, seed=50 + term) if term % 3 else None
        stream.add(y, gate)
        total += y if gate is None else gate.repeat_interleave(tokens // gate.shape[1], dim=1) * y
    return stream, total


@pytest.mark.parametrize("terms", [0, 1, 3, MOST - 1, MOST, MOST + 2])
@pytest.mark.parametrize("tile", [4, 12, 2**17])
@pytest.mark.parametrize("grad", [False, True])
def test_terms_are_added(terms, tile, grad, monkeypatch):
    """Tiles that do and do not divide the tokens of a run; any number of terms."""
    monkeypatch.setattr(module, "CPU_TILE", tile)
    with torch.set_grad_enabled(grad):
        stream, total = filled(terms)
        rows = torch.tensor([3, 0, 11, 12, 23, 17])
        torch.testing.assert_close(stream.take(rows), total.flatten(0, 1)[rows].view(2, 3, 4))
        assert len(stream.terms) == terms % MOST
        torch.testing.assert_close(stream.whole(), total)
        assert not stream.terms


def test_what_was_read_stays_as_it_was():
    stream, _ = filled(2)
    read = stream.whole()
    before = read.clone()
    for _ in range(3):
        stream.add(torch.ones_like(read))
    stream.whole()
    assert torch.equal(read, before)


@torch.no_grad()
def test_branches_read_no_more_than_they_compute(monkeypatch):
    """Full steps add up everything, a partial one only single tokens; the results are those of adding at once."""
    uneven = spec(stack(depth=1, branches=[attn(), replace(mlp(grid=None), scored_by=None)]))
    x, sums = draw(2, 15, WIDTH), []
    monkeypatch.setattr(module, "_sum", lambda x, terms, original=module._sum: sums.append(len(terms)) or original(x, terms))

    def run(lazily):
        outputs = []
        with Cache(uneven, ToCa(interval=2, score="random"), 4, seeds=[1, 2]) as cache:
            for step in range(4):
                cache.step(x)
                ((_, layer),) = cache.walk("blocks", [None])
                h = Stream(x + step) if lazily else x + step
                for branch in (layer.attn, layer.mlp):
                    y = branch(torch.tanh, h)
                    if lazily:
                        h.add(y)
                    else:
                        h = h + y
                outputs.append(h.whole() if lazily else h)
        return torch.stack(outputs)

    torch.testing.assert_close(run(lazily=True), run(lazily=False))
    assert sums == [1, 1, 2, 1, 1, 2]  # full: before the MLP, and at the end; partial: at the end
