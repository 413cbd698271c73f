"""Whether a sweep may be written to its folder."""

import os
from pathlib import Path

from runner.config import yaml_source
from runner.config.resolved import resolved
from runner.config.sweep import Sweep
from runner.errors import UserError, printable
from runner.execution.options import Existing
from runner.storage import files
from runner.storage import folder as names
from runner.storage.tables import read_header, read_rows


def config_text(sweep: Sweep, folder: Path) -> str:
    """The resolved config as YAML. Plugins are named relative to the sweep's folder, so that both can be moved.

    Errors: UserError where it could not be read again, because it is larger than a config may be.
    """
    plugins = [os.path.relpath(file, folder.resolve()) for file in sweep.plugins]
    text = yaml_source.dump({**sweep.resolved, **({"plugins": plugins} if plugins else {})})
    yaml_source.read(text, f"{folder / names.CONFIG}, the config with every default written out")
    return text


def check_existing(folder: Path, config: str, existing: Existing) -> None:
    """Errors: UserError where the folder holds other files, or where it holds a sweep and `existing` is "refuse"."""
    file = folder / names.CONFIG
    if not files.exists(file):
        if others := ", ".join(sorted(_other_files(folder))):
            holds = printable(others, keep="")
            raise UserError(f"{folder} holds {holds} but no {names.CONFIG}: not a sweep's folder; use --out DIR")
    elif existing == "refuse" and names.read_config(file) == resolved(config, "config"):
        raise UserError(f"{folder} already holds this sweep; --resume finishes it, --fresh starts over")
    elif existing == "refuse":
        raise UserError(
            f"{folder} already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both, "
            "--resume works if this config only adds runs"
        )


def _other_files(folder: Path) -> set[str]:
    """The names of the files that a sweep which was killed at its start does not leave: a table is empty then."""
    found = {name for name in files.names(folder) if not name.endswith(".partial")}
    tables = {names.METRICS, names.RUNS, names.CURVES, names.PROBES} & found
    ours = {name for name in tables if read_header(folder / name)[:1] == ["run"]}
    empty = {name for name in ours if not read_rows(folder / name)}
    return found - {names.LOCK, names.ENVIRONMENT, names.LOG, names.CHECKPOINTS, names.PLUGINS, names.CONTRAST} - empty
