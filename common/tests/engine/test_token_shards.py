"""Where tokens live. Several processes are tested with the models that use them; here a group of one, and its arithmetic as rank 1 of 2."""

import pytest
import torch
import torch.distributed as dist

from toca.engine.slots import gather
from toca.engine.token_shards import WHOLE, SequenceShards


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def tokens(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).view(shape)


def written(shards, chosen):
    """By flat index of the tokens here: which of the values went there."""
    x = torch.full((2, shards.local(10), 1), -1.0)
    shards.write(x, chosen, tokens(2, 3, 1))
    return {place: int(value) for place, value in enumerate(x.flatten().tolist()) if value >= 0}


def test_a_group_of_one_has_everything(group):
    shards, x = SequenceShards(group, 3, 5, num_heads=2), tokens(2, 15, 4)
    rows = torch.tensor([3, 1, 14, 15, 16, 20])
    assert shards.local(15) == WHOLE.local(15) == 15
    assert torch.equal(shards.split(x), x) and torch.equal(shards.join(x), x)
    assert torch.equal(shards.take(x, rows), gather(x, rows)) and torch.equal(shards.collect(gather(x, rows), rows), gather(x, rows))
    heads = tokens(3, 2, 3, 5, 2, 4)
    assert torch.equal(shards.heads(heads), heads) and torch.equal(shards.unheads(heads), heads)


def test_the_last_process_is_filled_up_by_zeros(group, monkeypatch):
    monkeypatch.setattr(dist, "get_world_size", lambda group: 2)
    monkeypatch.setattr(dist, "get_rank", lambda group: 1)
    shards, x = SequenceShards(group, 2, 5, num_heads=2), tokens(2, 10, 1) + 1
    assert shards.local(10) == 6
    assert shards.split(x)[..., 0].tolist() == [[4, 5, 0, 9, 10, 0], [14, 15, 0, 19, 20, 0]]
    chosen = torch.tensor([4, 8, 0, 13, 12, 19])  # tokens 4 8 0 of row 0, 3 2 9 of row 1
    assert written(shards, chosen) == {1: 0, 3: 1, 6: 3, 10: 5}
    assert written(shards, torch.tensor([0, 4, 1, 13, 12, 15])) == {1: 1, 6: 3}  # the first chosen token lives elsewhere
    assert written(shards, torch.tensor([0, 1, 2, 10, 11, 12])) == {}
    with pytest.raises(ValueError, match="3 heads do not divide among 2 processes"):
        SequenceShards(group, 2, 5, num_heads=3)
