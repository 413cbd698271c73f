"""Every config of the project is valid, planned, and accepted by the schema editors are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from runner.config import reader as config
from runner.config import yaml_source
from runner.interfaces.cli.main import main

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("**/*.yaml"))


@pytest.fixture(scope="module")
def editor() -> Any:
    """What an editor checks a config with."""
    schema = json.loads(CliRunner().invoke(main, ["schema"]).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_valid_here_and_in_an_editor(path: Path, editor: Any) -> None:
    sweep = config.load(path)
    assert sweep.name == path.stem
    assert sweep.axis is not None
    # With six pairs, the sign-flip test's smallest p is .03.
    assert len({run.seed for run in sweep.runs}) >= 8
    values = yaml_source.read(path.read_text(encoding="utf-8"), str(path)).values
    editor.validate(values)


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
def test_an_editor_shows_what_would_be_refused(values: object, editor: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        editor.validate(values)
