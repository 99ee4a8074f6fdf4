from pixart.solvers.dpm_solver import DPMS

__all__ = ["DPMS"]
