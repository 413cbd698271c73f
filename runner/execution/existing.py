"""Whether a sweep may be written to its folder."""

import os
from pathlib import Path

from runner.config import yaml_source
from runner.config.resolved import resolved
from runner.config.sweep import Sweep
from runner.errors import UserError
from runner.execution.options import Existing
from runner.storage import folder as files
from runner.storage.tables import read_header, read_rows


def config_text(sweep: Sweep, folder: Path) -> str:
    """The resolved config as YAML. Plugins are named relative to the sweep's folder, so that both can be moved."""
    plugins = [os.path.relpath(file, folder.resolve()) for file in sweep.plugins]
    return yaml_source.dump({**sweep.resolved, **({"plugins": plugins} if plugins else {})})


def check_existing(folder: Path, config: str, existing: Existing) -> None:
    """Errors: UserError where the folder holds other files, or where it holds a sweep and `existing` is "refuse"."""
    file = folder / files.CONFIG
    if not file.exists():
        if names := ", ".join(sorted(_other_files(folder))):
            raise UserError(f"{folder} holds {names} but no {files.CONFIG}: not a sweep's folder; use --out DIR")
    elif existing == "refuse" and files.read_config(file) == resolved(config, "config"):
        raise UserError(f"{folder} already holds this sweep; --resume finishes it, --fresh starts over")
    elif existing == "refuse":
        raise UserError(
            f"{folder} already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both, "
            "--resume works if this config only adds runs"
        )


def _other_files(folder: Path) -> set[str]:
    """The names of the files that a sweep which was killed at its start does not leave: a table is empty then."""
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".partial")}
    tables = {files.METRICS, files.RUNS, files.CURVES, files.PROBES} & names
    ours = {name for name in tables if read_header(folder / name)[:1] == ["run"]}
    empty = {name for name in ours if not read_rows(folder / name)}
    return names - {files.LOCK, files.ENVIRONMENT, files.LOG, files.CHECKPOINTS} - empty
