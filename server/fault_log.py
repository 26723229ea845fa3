"""The engine's throttle for like failures, under the server's name: see `engine/fault_log.py`."""

from engine.fault_log import INTERVAL_S, FaultLog

__all__ = ["INTERVAL_S", "FaultLog"]
