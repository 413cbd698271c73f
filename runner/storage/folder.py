"""Where things lie. Imports nothing heavy: a second writer is turned away before torch is loaded."""

from __future__ import annotations

import os
from pathlib import Path

from runner.errors import UserError


def data_folder(option: str | None) -> Path:
    """`--data-dir`, else $BNBENCH_DATA_DIR, else ./data."""
    return Path(option or os.environ.get("BNBENCH_DATA_DIR") or "data")


def sweep_folder(out: Path, name: str) -> Path:
    """`out/name`. Errors: UserError where a link leads it out of the results folder."""
    folder = out / name
    if not folder.resolve().is_relative_to(out.resolve()):
        raise UserError(f"{folder} leads out of the results folder {out}")
    return folder
