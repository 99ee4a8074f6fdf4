from opensora.schedulers.rf import RFLOW

__all__ = ["RFLOW"]
