"""The choices that were timed on this machine, by a digest of everything that they depend on: one small JSON file.

It is in `$BNBENCH_CACHE_DIR`, else in `$XDG_CACHE_HOME/bnbench`, else in `~/.cache/bnbench`. It only saves time: a file
that is damaged or cannot be written counts as no file.
"""

import os
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from runner.storage.files import write_atomically
from runner.training.learners.choice import Choice

CHOICES = TypeAdapter(dict[str, Choice])


def path() -> Path:
    """Where the choices are."""
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(os.environ.get("BNBENCH_CACHE_DIR") or Path(base) / "bnbench") / "choices.json"


def read() -> dict[str, Choice]:
    """The choices by their digests; none where the file is missing or damaged."""
    try:
        return CHOICES.validate_json(path().read_bytes())
    except (OSError, RuntimeError, ValidationError):
        return {}


def add(key: str, choice: Choice) -> None:
    """Keep a choice for the next sweep, where the folder can be written."""
    # RuntimeError: this user has no home.
    with suppress(OSError, RuntimeError):
        path().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path(), CHOICES.dump_json({**read(), key: choice}, indent=1))
