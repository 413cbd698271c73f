"""bnbench's engine: how runs are configured, trained, stored and compared. It knows no network by name."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from runner.registry import claim as claim
from runner.registry import dataset as dataset
from runner.registry import network as network
from runner.registry import norm as norm

__version__ = "0.1.0"

# These are imported on first use, because `bnbench --help` and `bnbench plan` need neither torch nor pandas.
_ON_FIRST_USE = {
    "run": "runner.interfaces.notebook",
    "load": "runner.interfaces.notebook",
    "table": "runner.interfaces.notebook",
    "RunBuilder": "runner.interfaces.run_builder",
    "RunManager": "runner.interfaces.run_manager",
    "DataSet": "runner.training.data.datasets",
    "Split": "runner.training.data.datasets",
    "Claim": "runner.analysis.claims.claim",
    "PairedValues": "runner.analysis.claims.paired_values",
}

if TYPE_CHECKING:
    from runner.analysis.claims.claim import Claim as Claim
    from runner.analysis.claims.paired_values import PairedValues as PairedValues
    from runner.interfaces.notebook import load as load
    from runner.interfaces.notebook import run as run
    from runner.interfaces.notebook import table as table
    from runner.interfaces.run_builder import RunBuilder as RunBuilder
    from runner.interfaces.run_manager import RunManager as RunManager
    from runner.training.data.datasets import DataSet as DataSet
    from runner.training.data.datasets import Split as Split
else:
    # mypy must not see this list: it cannot read the names of a dictionary, and would take the others for private.
    __all__ = ["network", "norm", "dataset", "claim", *_ON_FIRST_USE]


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'runner' has no attribute '{name}'")
    return getattr(import_module(_ON_FIRST_USE[name]), name)
