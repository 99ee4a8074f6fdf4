from pixart.t5 import T5Embedder

__all__ = ["T5Embedder"]
