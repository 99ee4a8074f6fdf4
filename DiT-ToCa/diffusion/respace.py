"""`toca.diffusion.respace` by its published name."""

from toca.diffusion.respace import space_timesteps

__all__ = ["space_timesteps"]
