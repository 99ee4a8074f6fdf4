"""Upstream's `flux.util`: the named models and how they are loaded."""

from flux.files import CONFIGS as configs
from flux.weights import load_ae, load_clip, load_flow_model, load_t5

__all__ = ["configs", "load_ae", "load_clip", "load_flow_model", "load_t5"]
