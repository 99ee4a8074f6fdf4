"""Upstream's place of what finds and reads checkpoints: `opensora.weights`."""

from opensora.weights import checkpoint_path, load_weights, read_config

__all__ = ["checkpoint_path", "load_weights", "read_config"]
