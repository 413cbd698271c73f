"""bnbench: does batch normalization help here, by how much, and how sure are we?

All public names are here: `from bnbench import network, run, load`. They are those of the package `runner`, where they
are listed. A user's own `runner.py` cannot hide it: `runner` is loaded from the folder that this package is in.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner import *  # noqa: F403


def _load_runner() -> None:
    """Import `runner` from the folder of this package. Errors: ImportError where another `runner` is imported."""
    place = Path(__file__).resolve().parent.parent
    if known := sys.modules.get("runner"):
        file = Path(known.__file__ or "an interactive session").resolve()
        if file != place / "runner/__init__.py":
            hides = f"{file} hides the package 'runner' of bnbench, which is in {place}"
            raise ImportError(f"{hides}; give it another name, or import bnbench first")
        return
    spec = PathFinder.find_spec("runner", [str(place)])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["runner"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["runner"])


_load_runner()

import runner  # noqa: E402

__version__ = runner.__version__
__all__ = [*runner.__all__]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bnbench' has no attribute '{name}'")
    return getattr(runner, name)
