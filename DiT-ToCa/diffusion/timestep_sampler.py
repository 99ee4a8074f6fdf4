"""`dit.training.timestep_sampler` by its published name."""

from dit.training.timestep_sampler import LogitNormalSampler, UniformSampler, create_named_schedule_sampler

__all__ = ["LogitNormalSampler", "UniformSampler", "create_named_schedule_sampler"]
