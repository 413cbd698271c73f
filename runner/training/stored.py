"""The sweep of a results folder, which may have been renamed or moved since it was trained.

environment.json has the folder's first place, if the sweep has plugins or a `checkpoint_dir`. What a relative path no
longer reaches from the folder is looked for from there.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from runner.config import reader
from runner.config.sweep import NAME, Sweep
from runner.errors import printable
from runner.registry import plugin_parts
from runner.storage.folder import CONFIG, config_file, read_config
from runner.storage.resume import read_environment

_FOLDER = "folder"
"""The entry of environment.json that has the folder's first place."""


def record(sweep: Sweep, first: Path) -> dict[str, str]:
    """What environment.json says of the sweep's first place, if the sweep has paths that begin there."""
    return {_FOLDER: str(first.resolve())} if sweep.plugins or sweep.checkpoint_dir else {}


def load(folder: Path) -> Sweep:
    """The sweep of a results folder. It has the folder's name now, if a sweep can have this name.

    Errors: UserError with every fault of its config, or where a plugin is missing.
    """
    file, first = config_file(folder), first_place(folder)
    config, changes = read_config(file), dict[str, Any]()
    name = folder.resolve().name
    if name != config["name"] and re.fullmatch(NAME, name):
        changes["name"] = name
    if first != folder:
        plugins = [_reached(plugin, folder, first) for plugin in config.get("plugins", [])]
        changes |= {"plugins": plugins} if plugins != config.get("plugins", []) else {}
        place = config.get("checkpoint_dir", "")
        # A storage beside the folder was moved with it.
        beside = os.path.normpath(folder.resolve() / os.path.relpath(place, first)) if place.startswith("/") else place
        changes |= {"checkpoint_dir": beside} if Path(beside).is_dir() and not Path(place).exists() else {}
    return reader.load(file, [f"{key}={json.dumps(value)}" for key, value in changes.items()])


def first_place(folder: Path) -> Path:
    """Where the sweep was trained first, if nothing holds this place now; else the folder."""
    recorded = (read_environment(folder) or {}).get(_FOLDER)
    if not isinstance(recorded, str) or not recorded.startswith("/") or printable(recorded, keep="") != recorded:
        return folder
    moved = recorded != str(folder.resolve()) and not os.path.lexists(Path(recorded) / CONFIG)
    return Path(recorded) if moved else folder


def names_from(folder: Path) -> Path:
    """The folder from which the names of the plugins' files in environment.json lead to them: this one or the first."""
    names = (read_environment(folder) or {}).get("plugins")
    reached = isinstance(names, dict) and all(_exists(folder.resolve() / name) for name in names)
    return folder if reached else first_place(folder)


def places(folder: Path) -> tuple[Path, Path]:
    """The sweep's first place, and the folder from which its plugins' files are named."""
    return first_place(folder), names_from(folder)


def _reached(plugin: str, folder: Path, first: Path) -> str:
    """A plugin's path, from the folder's first place if it does not exist from the folder."""
    file, _ = plugin_parts(plugin)
    if _exists(folder.resolve() / file) or not _exists(first / file):
        return plugin
    return os.path.normpath(first / plugin)


def _exists(path: Path) -> bool:
    # The first place may be gone, so that a path cannot lead through it.
    return os.path.exists(os.path.normpath(path))  # noqa: PTH110
