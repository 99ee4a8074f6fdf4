"""Several processes that share one video: their group, and who has which tokens."""

from __future__ import annotations

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from opensora.spec import STDiT3Config
from toca.engine.token_shards import WHOLE, SequenceShards, Whole


def sequence_parallel_group(device_type: str) -> dist.ProcessGroup:
    """All processes of an initialised run as one group: of ColossalAI's mesh where it is installed, as upstream's, else of torch's."""
    try:
        from colossalai.cluster import ProcessGroupMesh
    except ImportError:
        return init_device_mesh(device_type, (dist.get_world_size(),)).get_group()
    return ProcessGroupMesh(1, dist.get_world_size()).get_group_along_axis(1)


def check_heads(config: STDiT3Config, processes: int) -> None:
    """Raises ValueError if the heads do not divide among the processes, as `shard_tokens` does once they have a group."""
    if config.num_heads % processes:
        divisors = ", ".join(str(n) for n in range(1, config.num_heads + 1) if config.num_heads % n == 0)
        raise ValueError(f"--sequence-parallel: {config.num_heads} heads do not divide among {processes} processes; start {divisors}")


def shard_tokens(config: STDiT3Config, latent: tuple[int, int, int], group: dist.ProcessGroup | None) -> Whole:
    """Every frame's tokens of a latent (frames, rows, columns) in runs among the processes of a group; all here without one.

    For `STDiT3.forward` and its `Cache`. Raises ValueError if the heads do not divide among the processes.
    """
    frames, rows, columns = config.grid(latent)
    return SequenceShards(group, frames, rows * columns, config.num_heads) if group else WHOLE
