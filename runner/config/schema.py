"""The JSON schema of a config: completion and checks in an editor."""

from __future__ import annotations

from typing import Any

from runner import registry
from runner.config.run_spec import PARAMETERS, RunSpec
from runner.config.sweep import NAME_RULE, Config


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the YAML file, with the registered networks and data sets as choices."""
    registry.load_plugins()
    schema = Config.model_json_schema()
    parameters = {key: value for key, value in RunSpec.model_json_schema()["properties"].items() if key in PARAMETERS}
    parameters["network"]["examples"] = sorted(registry.network)
    parameters["dataset"]["examples"] = sorted(registry.dataset)
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
    argument = {"^network\\..+": {"description": "an argument of the network's factory"}}
    lists = {
        key: {"description": value.get("description", ""), "anyOf": [_list_of(value), helper]}
        for key, value in parameters.items()
    }
    axes = {"type": "object", "properties": lists, "patternProperties": argument, "additionalProperties": False}
    grid = {**axes, "properties": {**lists, "zip": {**axes, "description": "lists that advance together"}}}
    schema["properties"]["fixed"] |= {
        "properties": parameters,
        "patternProperties": argument,
        "additionalProperties": False,
    }
    described = schema["properties"]["grid"]["description"]
    schema["properties"]["grid"] = {**grid, "description": described}
    schema["properties"]["grids"] = {
        "type": "array",
        "items": grid,
        "description": schema["properties"]["grids"]["description"],
    }
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = f"bnbench config (names: {NAME_RULE})"
    return schema


def _list_of(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": {key: entry for key, entry in value.items() if key != "default"}}
