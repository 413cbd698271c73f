"""Every config of the project is valid, planned, and accepted by the schema editors are given."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from click.testing import Result

from runner.config import reader as config
from runner.config import yaml_source

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("**/*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_here_and_in_an_editor(path: Path, bnbench: Callable[..., Result]) -> None:
    sweep = config.load(path)
    assert sweep.name == path.stem
    assert sweep.axis is not None
    # With six pairs, the sign-flip test's smallest p is .03.
    assert len({run.seed for run in sweep.runs}) >= 8
    schema = json.loads(bnbench("schema").stdout)
    values = yaml_source.read(path.read_text(encoding="utf-8"), str(path)).values
    jsonschema.validate(values, schema)


@pytest.mark.parametrize(
    "values",
    [
        {"fixed": {"netwrk": "x"}},
        {"fixed": {"lr": -1}},
        {"grid": {"lr": 0.1}},
        {"grid": {"optimizer": ["sdg"]}},
        {"fixd": {}},
        {"name": "../x"},
        {"grid": {"zip": {"lr": 3}}},
    ],
)
def test_an_editor_shows_what_would_be_refused(values: object, bnbench: Callable[..., Result]) -> None:
    schema = json.loads(bnbench("schema").stdout)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, schema)
