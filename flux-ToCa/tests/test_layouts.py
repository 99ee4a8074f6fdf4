"""Other layouts of weights, against diffusers' own networks and against the arithmetic of adapters."""

from __future__ import annotations
