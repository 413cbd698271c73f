"""bnbench's engine: how runs are built, trained, stored and compared. It knows no network by name."""

from __future__ import annotations

from typing import Any

from runner.registry import dataset, network, norm

__all__ = ["RunBuilder", "RunManager", "dataset", "load", "network", "norm", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Imported on first use: `bnbench --help` and `bnbench plan` need neither torch nor pandas.
    if name == "RunBuilder":
        from runner.config.grid import RunBuilder

        return RunBuilder
    if name == "RunManager":
        from runner.interfaces.run_manager import RunManager

        return RunManager
    if name in ("load", "run"):
        from runner.interfaces import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module 'runner' has no attribute '{name}'")
