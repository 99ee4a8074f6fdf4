from pixart.solvers.iddpm import IDDPM

__all__ = ["IDDPM"]
