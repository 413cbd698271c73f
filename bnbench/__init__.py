"""bnbench: does batch normalization help here, by how much, and how sure are we?

All public names are here: `from bnbench import network, run, load`. They are those of the package `runner`, where they
are listed. A user's own `runner.py` does not hide them: `runner` is first looked for beside this package.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runner import *  # noqa: F403


def _load_runner() -> None:
    """Import the package `runner` beside this one. Errors: ImportError where another `runner` is imported already."""
    # (On a node of a Ray cluster, each package is in a folder of its own.)
    spec = PathFinder.find_spec("runner", [str(Path(__file__).resolve().parent.parent), *sys.path])
    assert spec is not None
    assert spec.loader is not None
    assert spec.origin is not None
    known = sys.modules.get("runner")
    if known is None:
        sys.modules["runner"] = module_from_spec(spec)
        spec.loader.exec_module(sys.modules["runner"])
    elif (file := Path(known.__file__ or "")).resolve() != Path(spec.origin).resolve():
        raise ImportError(f"{file} hides bnbench's package 'runner' ({spec.origin}); give it another name")


_load_runner()

import runner  # noqa: E402

__version__ = runner.__version__
__all__ = [*runner.__all__]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'bnbench' has no attribute '{name}'")
    return getattr(runner, name)
