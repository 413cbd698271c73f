"""The JSON schema of a config: completion and checks in an editor."""

from typing import Any

from runner import registry
from runner.config.run_spec import RunSpec
from runner.config.sweep import NAME_RULE, Config


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the YAML file. Registered networks and data sets are given as examples."""
    registry.load_plugins()
    schema = Config.model_json_schema()
    parameters = RunSpec.model_json_schema()["properties"]
    del parameters["network_args"]
    parameters["network"]["examples"] = sorted(registry.network)
    parameters["dataset"]["examples"] = sorted(registry.dataset)
    arguments = {
        "patternProperties": {"^network\\..+": {"description": "an argument of the network's factory"}},
        "additionalProperties": False,
    }
    lists = {key: _list_of(value) for key, value in parameters.items()}
    axes = {"type": "object", "properties": lists, **arguments}
    grid = {**axes, "properties": {**lists, "zip": {**axes, "description": "lists that advance together"}}}
    top = schema["properties"]
    top["fixed"] |= {"properties": parameters, **arguments}
    top["grid"] = {**grid, "description": top["grid"]["description"]}
    top["grids"] = {"type": "array", "items": grid, "description": top["grids"]["description"]}
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"bnbench config (names: {NAME_RULE})"
    return schema


def _list_of(value: dict[str, Any]) -> dict[str, Any]:
    """The schema of a grid's entry: a list of these values, or a helper that makes one."""
    helper = {
        "type": "object",
        "properties": {
            "range": {"description": "n, or [start, stop]"},
            "logspace": {"type": "array", "minItems": 3, "maxItems": 3, "description": "[first, last, n]"},
        },
        "additionalProperties": False,
        "maxProperties": 1,
        "minProperties": 1,
    }
    items = {key: entry for key, entry in value.items() if key != "default"}
    values = {"type": "array", "minItems": 1, "items": items}
    return {"description": value["description"], "anyOf": [values, helper]}
