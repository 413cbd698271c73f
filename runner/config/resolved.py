"""The resolved config in a sweep's folder, read without the plugins that it names."""

from typing import Any

from runner.config import checks
from runner.config import grid as grids
from runner.config.faults import Faults
from runner.config.run_spec import LATER
from runner.config.shards import narrowed_config
from runner.config.values import fixed_of, grids_of
from runner.config.yaml_source import read
from runner.errors import UserError


def resolved(text: str, file: str) -> dict[str, Any]:
    """A resolved config from its text. Run parameters that are newer than the config have their default.

    The helpers of its grids (`range`, `logspace`) are lists here. All but the names and arguments of networks and data
    sets is checked as in a config that is to be trained. So its runs can be counted and made, and its values have their
    types. Of a shard, it has the shard's own runs only, each as a grid of its own.
    Errors: UserError, which names the file, where the text is not a resolved config.

    >>> resolved("name: x\\nfixed: {network: mine, epochs: 3}\\ngrid: {seed: [0, 1]}", "config.yaml")["grid"]
    {'seed': [0, 1]}
    >>> resolved("name: x\\nfixed: {network: mine, epochs: 3}\\ngrid: 5", "config.yaml")
    Traceback (most recent call last):
    runner.errors.UserError: config.yaml:3:7: grid: must be a mapping, got 5
    ...
    """
    faults = Faults(read(text, file), registered=False)
    values = faults.source.values
    if not isinstance(values, dict) or "name" not in values or not isinstance(values.get("fixed"), dict):
        raise UserError(f"{file}: not the resolved config of a sweep")
    config = checks.structure(faults, "")
    fixed = fixed_of(config, faults)
    listed = list(grids_of(config, faults))
    faults.raise_all()
    for grid, path in listed:
        for missing in {"network", "epochs"} - {*fixed, *grids.flat(grid)}:
            faults.add(f"not the resolved config of a sweep: it has no {missing}", path)
    checks.check_contrast(config, listed, faults)
    checks.check_exclude(config, [key for grid, _ in listed for key in grids.keys(grid)], faults)
    faults.raise_all()
    lists = {key: grids.without_helpers(values[key]) for key in ("grid",) if key in values}
    if "grids" in values:
        lists["grids"] = list(map(grids.without_helpers, values["grids"]))
    later = {name: list(value) if isinstance(value, tuple) else value for name, value in LATER.items()}
    whole = {**values, **lists, "fixed": {**later, **fixed}}
    return narrowed_config(whole, config.shard) if config.shard else whole
