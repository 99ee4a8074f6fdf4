"""DiT by its published name; the code is `dit.model`."""

from dit.model import DiT, DiT_models, DiTBlock, FinalLayer, LabelEmbedder

__all__ = ["DiT", "DiTBlock", "DiT_models", "FinalLayer", "LabelEmbedder"]
