"""Upstream's import paths, over the package `pixart`."""

from pixart.solvers import DPMS, IDDPM, SASolverSampler

__all__ = ["DPMS", "IDDPM", "SASolverSampler"]
