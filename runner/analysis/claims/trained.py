"""Whether a sweep's tables were trained as a claim's config says."""

import json
from collections.abc import Mapping
from typing import Any

from runner.analysis.claims.claim import Claim
from runner.config import grid
from runner.storage import files
from runner.storage.folder import CONFIG, read_config
from runner.storage.results import DEFAULTS, Results

ABSENT = "not set"


def config_values(resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What a resolved config trains: run parameters with their value, or with the list of their values.

    The device is left out, because a plan does not know it. Run parameters that the config does not name, because it is
    older, have their default.

    >>> config_values({"fixed": {"epochs": 3}, "grid": {"seed": {"range": 2}}})["seed"]
    [0, 1]
    """
    values = {**DEFAULTS, **resolved.get("fixed", {}), **grid.flat(grid.without_helpers(resolved.get("grid") or {}))}
    for name in ("grids", "exclude"):
        if resolved.get(name):
            values[name] = resolved[name]
    contrast = resolved.get("contrast") or {}
    values |= {f"contrast.{name}": contrast.get(name) for name in ("axis", "baseline")}
    for name in ("device", "network_args"):
        values.pop(name, None)
    return dict(json.loads(json.dumps(values, default=list)))


def departures(claim: Claim, results: Results) -> tuple[str, ...]:
    """How the tables differ from the claim's config, and that config from the document's budget; empty if they do not.

    Runs that are not those of the config are a preview, and give no verdict.
    Errors: UserError where a config is wrong.
    """
    if not files.exists(results.folder / CONFIG):
        return (f"no {CONFIG}",)
    here = config_values(read_config(results.folder / CONFIG))
    planned = config_values(claim.sweep("full").resolved)
    budget = {name: value for name, value in claim.document.parameters.items() if here.get(name, ABSENT) != value}
    own = [name for name in {**here, **planned} if here.get(name, ABSENT) != planned.get(name, ABSENT)]
    found = [_departure(name, here.get(name, ABSENT), value, "the budget's ") for name, value in budget.items()]
    found += [_departure(name, here.get(name, ABSENT), planned.get(name, ABSENT)) for name in own if name not in budget]
    return tuple(found)


def _departure(name: str, here: object, planned: object, whose: str = "") -> str:
    if name == "seed":
        count, wanted = (len(value) if isinstance(value, list) else 1 for value in (here, planned))
        return f"{count} seeds, not {wanted}" if count != wanted else "other seeds"
    return f"{name} {shown(here)}, not {whose}{shown(planned)}"


def shown(value: object) -> str:
    """A value in a sentence. None is shown as all, which it means for `train_samples`.

    >>> shown(None), shown(True), shown(20.0), shown([0.1, 1]), shown([3, 4, 5])
    ('all', 'true', '20', '[0.1, 1]', '3 to 5')
    """
    if value is None:
        return "all"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    if isinstance(value, list) and len(value) > 2 and all(type(entry) is int for entry in value):
        first, last = value[0], value[-1]
        if value == list(range(first, last + 1)):
            return f"{first} to {last}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
