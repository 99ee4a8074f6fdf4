"""Upstream's `flux.sampling`: from noise to latents."""

from flux.sampler import denoise, get_noise, get_schedule, prepare, time_shift, unpack

__all__ = ["denoise", "get_noise", "get_schedule", "prepare", "time_shift", "unpack"]
