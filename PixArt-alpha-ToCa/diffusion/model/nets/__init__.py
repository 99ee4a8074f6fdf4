from diffusion.model.nets.PixArt import PixArt, PixArt_XL_2, trim_text
from diffusion.model.nets.PixArtMS import PixArtMS, PixArtMS_XL_2

__all__ = ["PixArt", "PixArtMS", "PixArtMS_XL_2", "PixArt_XL_2", "trim_text"]
