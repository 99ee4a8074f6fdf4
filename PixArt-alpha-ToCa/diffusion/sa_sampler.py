from pixart.solvers.sa_solver import SASolverSampler

__all__ = ["SASolverSampler"]
