"""PyYAML's traps, and where a value came from."""

from __future__ import annotations

import math

import pytest

from runner.config.yaml_source import dump, read
from runner.errors import UserError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.0e-3", 0.001),
        (".5", 0.5),
        ("-7", -7),
        ("1_000", "1_000"),
        ("0o17", "0o17"),
        ("12:30:45", "12:30:45"),
        ("2024-01-01", "2024-01-01"),
        ("on", "on"),
        ("No", "No"),
        ("true", True),
        ("~", None),
        ("null", None),
        ("none", "none"),
        (".inf", math.inf),
        ("-.inf", -math.inf),
        ("!!str 5", "5"),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: object) -> None:
    read_value = read(f"x: {text}", "f").values["x"]
    assert read_value == value
    assert type(read_value) is type(value)


def test_what_is_dumped_is_read_back() -> None:
    values = {"a": ["on", "1e-3", "true", "~", "", "0.1", 0.1, 1e-5, 1e20, 3, True, None], "b": {"c": "x: y"}}
    assert read(dump(values), "f").values == values


def test_every_duplicate_key_is_named_with_its_place_and_the_first_one() -> None:
    with pytest.raises(UserError) as caught:
        read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n", "f.yaml")
    first, second = (str(fault) for fault in caught.value.faults)
    assert first.startswith("f.yaml:4:3: duplicate key 'c', first on line 3\n")
    assert second.startswith("f.yaml:5:1: duplicate key 'a', first on line 1\n")


def test_a_fault_shows_the_line_and_a_caret_under_the_column() -> None:
    with pytest.raises(UserError) as caught:
        read("fine: 1\nbad: [1, 2\n", "f.yaml")
    assert "f.yaml:3:1: not YAML" in str(caught.value) or "f.yaml:2:" in str(caught.value)
    source = read("fixed:\n  lr: -1\n", "f.yaml")
    assert source.place(("fixed", "lr")).excerpt() == "\n     2 |   lr: -1\n       |       ^"
    assert str(source.place(("fixed", "lr", 3))) == "f.yaml:2:7"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("!!python/object/apply:os.system [ls]", "tag"),
        ("x: !!binary aGk=", "tag"),
        ("x: !!int abc", "does not fit"),
        ("x: " + "1" * 5000, "too many digits"),
        ("%YAML 1." + "1" * 5000 + "\n--- 1", "a number in a directive"),
        ('x: "\\U00110000"', "an escaped character"),
        ("[" * 400 + "]" * 400, "deep"),
        ("[" * 20_000, "deep"),
        ("x: " + "y" * 70_000, "larger than 64 KiB"),
        ("a: &a [" + "1," * 100 + "]\nb: &b [" + "*a," * 100 + "]\nc: [" + "*b," * 100 + "]", "aliases"),
        ("a: &a [*a]", "deep"),
        ("? [1, 2]\n: x", "a key must be a word"),
        ("a: b: c", "not YAML"),
        ("a: \x07", "not YAML"),
        ("a: *nowhere", "not YAML"),
        ("--- 1\n--- 2", "not YAML"),
    ],
)
def test_what_is_not_a_config_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(text, "f.yaml")


def test_set_replaces_one_key_and_says_so_in_a_fault() -> None:
    source = read("fixed: {lr: 0.1, network.norm_args.eps: 1}\ngrid: {seed: [1]}\n", "f.yaml")
    source.override("fixed.network.norm_args.eps=1e-3")
    source.override("grid.seed=[1, 2]")
    source.override("grid.zip.lr=[0.1]")
    source.override("name=x")
    assert source.values == {
        "fixed": {"lr": 0.1, "network.norm_args.eps": 0.001},
        "grid": {"seed": [1, 2], "zip": {"lr": [0.1]}},
        "name": "x",
    }
    assert str(source.place(("grid", "seed", 1))) == "--set grid.seed=[1, 2]"


@pytest.mark.parametrize(
    "assignment",
    [
        *("lr", "=3", "name.x=3", "grids.0.lr=[1]", "grid.lr=[1", "grids.٣.seed=[1]", "name=\udcff"),
        f"grids.{'1' * 5000}.seed=[1]",
    ],
)
def test_set_refuses_what_it_cannot_apply(assignment: str) -> None:
    source = read("name: x", "f.yaml")
    with pytest.raises(UserError, match="--set") as caught:
        source.override(assignment)
    assert len(str(caught.value)) < 300
