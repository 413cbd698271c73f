"""A sweep that is too large is refused before anything is made, and exclusions cost little."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from runner.config import grid as grids
from runner.config.reader import from_mapping
from runner.errors import UserError

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

RANGES = {f"network.a{number}": {"range": 200_000} for number in range(40)}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"grid": RANGES}, r"^config: more than 1,000,000,000,000,000 runs; at most 200,000 in one sweep$"),
        ({"grids": [{"seed": {"range": 200_000}}] * 40}, "8,000,000 runs; at most 200,000"),
        ({"grid": {"zip": RANGES}}, "8,000,000 values of grid keys; at most 2,000,000"),
        ({"grid": {"lr": {"logspace": [0.1, 1, 200_000]}, "seed": [0, 1]}}, "400,000 runs"),
    ],
)
def test_a_sweep_that_is_too_large_is_counted_and_not_made(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], message: str
) -> None:
    def made(_: object) -> None:
        raise AssertionError("the values of a helper were made")

    monkeypatch.setattr(grids, "values_of", made)
    with pytest.raises(UserError, match=message):
        from_mapping({"fixed": {"network": "batch_norm"}, **config})


def test_the_largest_sweep_is_allowed() -> None:
    assert grids.excess([{"seed": {"range": 200_000}}]) is None
    assert grids.excess([{"seed": {"range": 20_000}, "zip": {"lr": [1, 2], "epochs": [3, 4]}}] * 5) is None


def first_rule(point: dict[str, Any], rules: list[dict[str, Any]]) -> int | None:
    """The definition: a rule matches a point that has, for each key, the rule's value or one of its listed values."""
    for index, rule in enumerate(rules):
        if all(key in point and (point[key] == want or point[key] in want) for key, want in as_lists(rule)):
            return index
    return None


def as_lists(rule: dict[str, Any]) -> list[tuple[str, list[Any]]]:
    return [(key, want if isinstance(want, list) else [want]) for key, want in rule.items()]


def test_exclusions_are_those_of_the_definition() -> None:
    draw = random.Random(0)
    values = [0, 1, 2.0, True, "a", None, ["a", "b"], [["a", "b"], 1], [1, "a"]]
    keys = ["lr", "seed", "probes"]
    matched = []
    for _ in range(300):
        names = [draw.sample(keys, draw.randrange(len(keys) + 1)) for _ in range(6)]
        rules = [{key: draw.choice(values) for key in chosen} for chosen in names]
        exclusions = grids.Exclusions(rules)
        for _ in range(10):
            point = {key: draw.choice(values) for key in draw.sample(keys, draw.randrange(len(keys) + 1))}
            matched.append(exclusions.first(point))
            assert matched[-1] == first_rule(point, rules), (point, rules)
    assert set(matched) == {None, *range(6)}


class Counted(dict[str, Any]):
    """A point that counts how often it is asked for a value."""

    asked = 0

    def __getitem__(self, key: str) -> Any:
        Counted.asked += 1
        return super().__getitem__(key)


def test_a_point_is_compared_with_all_exclusions_at_once() -> None:
    exclusions = grids.Exclusions([{"lr": number, "seed": number} for number in range(2500)])
    assert exclusions.first(Counted(lr=2499, seed=2499, epochs=1)) == 2499
    assert Counted.asked <= 2


TWO = """\
from runner import network


@network("a")
def a(*, x: int): ...


@network("b")
def b(*, y: int): ...
"""


def test_many_pairs_are_counted_and_not_listed(bnbench: Bnbench, write: Write) -> None:
    write("two.py", TWO)
    listed = "[{network: [a], network.x: {range: 300}}, {network: [b], network.y: {range: 300}}]"
    done = bnbench(
        "plan", write("two.yaml", f"plugins: [two.py]\ncontrast: {{axis: network, baseline: a}}\ngrids: {listed}\n")
    )
    assert done.exit_code == 0, done.stderr
    shown = ", ".join(f"run {number}" for number in range(301, 321))
    assert done.stdout.splitlines()[1].endswith(f"paired with {shown}, … (300 runs)")
    assert len(done.stdout) < 300_000
