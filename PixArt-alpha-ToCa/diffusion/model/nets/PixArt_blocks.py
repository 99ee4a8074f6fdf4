from pixart.blocks import CaptionEmbedder, MultiHeadCrossAttention, PixArtBlock, SizeEmbedder, T2IFinalLayer

__all__ = ["CaptionEmbedder", "MultiHeadCrossAttention", "PixArtBlock", "SizeEmbedder", "T2IFinalLayer"]
