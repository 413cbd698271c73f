"""What lies in a sweep's folder already."""

from __future__ import annotations

import os
from pathlib import Path

from runner.config import yaml_source
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.options import Existing
from runner.storage.folder import CHECKPOINTS, CONFIG, CURVES, ENVIRONMENT, LOCK, LOG, METRICS, PROBES, RUNS
from runner.storage.tables import read_header, read_rows


def config_text(sweep: Sweep, folder: Path) -> str:
    """The resolved config as YAML; plugins are named relative to the sweep's folder, so that both can be moved."""
    plugins = [os.path.relpath(file, folder.resolve()) for file in sweep.plugins]
    return yaml_source.dump({**sweep.resolved, **({"plugins": plugins} if plugins else {})})


def check_existing(folder: Path, config: str, existing: Existing) -> None:
    if not (folder / CONFIG).exists():
        if strangers := _strangers(folder):
            raise UserError(
                f"{folder} holds {', '.join(sorted(strangers))} without a {CONFIG}: not this command's, so left alone; "
                "--out names another folder"
            )
        return
    if (folder / CONFIG).exists() and existing == "refuse":
        same = (folder / CONFIG).read_text(encoding="utf-8") == config
        if same:
            raise UserError(f"{folder} already holds this sweep; --resume finishes it, --fresh starts over")
        raise UserError(
            f"{folder} already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both, "
            f"--resume works where this config only adds runs to it"
        )


def _strangers(folder: Path) -> set[str]:
    """What is not left of a start that was killed: other files, and tables that have rows."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    tables = {METRICS, RUNS, CURVES, PROBES} & names
    blank = {name for name in tables if read_header(folder / name)[:1] == ["run"] and not read_rows(folder / name)}
    return names - {LOCK, ENVIRONMENT, LOG, CHECKPOINTS} - blank
