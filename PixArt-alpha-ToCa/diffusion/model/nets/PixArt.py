from pixart.model import PixArt, PixArt_XL_2

__all__ = ["PixArt", "PixArt_XL_2"]
