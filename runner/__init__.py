"""bnbench's engine: how runs are configured, trained, stored and compared. It knows no network by name."""

from importlib import import_module
from typing import Any

from runner.registry import claim, dataset, network, norm

__version__ = "0.1.0"

# These are imported on first use, because `bnbench --help` and `bnbench plan` need neither torch nor pandas.
_ON_FIRST_USE = {
    "Claim": "runner.analysis.claims.claim",
    "PairedValues": "runner.analysis.claims.paired_values",
    "DataSet": "runner.training.data.datasets",
    "RunBuilder": "runner.interfaces.run_builder",
    "RunManager": "runner.interfaces.run_manager",
    "Split": "runner.training.data.datasets",
    "load": "runner.interfaces.notebook",
    "run": "runner.interfaces.notebook",
    "table": "runner.interfaces.notebook",
}

__all__ = ["claim", "dataset", "network", "norm", *_ON_FIRST_USE]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'runner' has no attribute '{name}'")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
