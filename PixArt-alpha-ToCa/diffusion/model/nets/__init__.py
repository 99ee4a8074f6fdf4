from pixart.model import PixArt, PixArt_XL_2, PixArtMS, PixArtMS_XL_2

__all__ = ["PixArt", "PixArtMS", "PixArtMS_XL_2", "PixArt_XL_2"]
