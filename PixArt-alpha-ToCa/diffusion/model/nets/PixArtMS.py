from pixart.model import PixArtMS, PixArtMS_XL_2

__all__ = ["PixArtMS", "PixArtMS_XL_2"]
