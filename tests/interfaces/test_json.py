"""`--format json`: of every command that has it, the output is JSON and nothing else, and says what the text says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from runner.interfaces.cli.main import main

Bnbench = Callable[..., Result]

ROOT = Path(__file__).parent.parent.parent

CONFIG = """\
name: seen
save_weights: true
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, batch_size: 250, train_samples: 500, epochs: 1, device: cpu}
grid:
  network: [no_batch_norm, batch_norm]
  seed: {range: 2}
"""

CASES: dict[str, tuple[str, ...]] = {
    "plan": ("plan", "CONFIG"),
    "validate": ("validate", "CONFIG"),
    "watch": ("watch", "SWEEP", "--once"),
    "networks": ("networks",),
    "networks NAME": ("networks", "notebook_mlp", "--set", "norm=batch"),
    "datasets": ("datasets",),
    "datasets NAME": ("datasets", "digits", "mnist"),
    "datasets --verify": ("datasets", "--verify", "digits"),
    "configs": ("configs",),
    "configs NAME": ("configs", "quickstart"),
    "claims": ("claims",),
    "claims show": ("claims", "show", str(ROOT / "results/reference/claims"), "larger_learning_rates"),
    "compare": ("compare", "SWEEP"),
    "inspect": ("inspect", "SWEEP", "2"),
    "variance": ("variance", "STREAMS"),
}
"""Each command with `--format json`, in each of its uses."""

TABLES = ("claims show", "compare", "inspect", "variance")
"""Their numbers, and the columns of their records, are tested where they are made."""

RECORDS = [case for case in CASES if case not in TABLES]

TOO_SLOW = {"calibrate"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A config, its sweep, and a sweep that varies the random streams."""
    folder = tmp_path_factory.mktemp("with a blank")
    texts = {"seen": CONFIG, "streams": CONFIG.replace("seen", "streams").replace("seed:", "seed_weights:")}
    texts["streams"] += "  seed_batches: {range: 2}\n"
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text)
        run = ["run", f"{folder}/{name}.yaml", "--out", str(folder), "--executor", "inline", "-q"]
        done = CliRunner().invoke(main, run, catch_exceptions=False)
        assert done.exit_code == 0, done.stderr
    return {"CONFIG": f"{folder}/seen.yaml", "SWEEP": f"{folder}/seen", "STREAMS": f"{folder}/streams"}


def commands(group: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    if path:
        yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, f"{path} {name}".strip())


def has_json(command: click.Command) -> bool:
    return any(p.name == "style" and "json" in getattr(p.type, "choices", ()) for p in command.params)


def test_every_command_with_json_is_tested_here() -> None:
    names = {path for path, command in commands(main) if has_json(command)} - TOO_SLOW
    tested = {next(name for name in sorted(names, key=len, reverse=True) if case.startswith(name)) for case in CASES}
    assert tested == names


def texts_of(value: Any) -> Iterator[str]:
    """The texts in a record. Text and JSON write numbers differently, so numbers are tested with their commands."""
    if isinstance(value, dict):
        for key, each in value.items():
            if key not in NOT_IN_TEXT:
                yield from texts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from texts_of(each)
    elif isinstance(value, str):
        yield value


NOT_IN_TEXT = {"run_id", "parameters", "folder", "status", "state", "label"}
"""Keys whose texts a person reads elsewhere, or in other words."""


@pytest.mark.parametrize("case", RECORDS)
def test_json_says_what_the_text_says(case: str, bnbench: Bnbench, places: dict[str, str]) -> None:
    arguments = [places.get(word, word) for word in CASES[case]]
    text, done = bnbench(*arguments), bnbench(*arguments, "--format", "json")
    assert (done.exit_code, done.stderr) == (text.exit_code, text.stderr) == (0, "")
    shown = " ".join(text.stdout.split())
    for each in texts_of(json.loads(done.stdout)):
        assert " ".join(each.split()) in shown


@pytest.mark.parametrize("case", CASES)
def test_json_is_all_that_stands_on_stdout_and_its_keys_are_documented(
    case: str, bnbench: Bnbench, places: dict[str, str]
) -> None:
    done = bnbench(*(places.get(word, word) for word in CASES[case]), "--format", "json")
    assert done.exit_code == 0, done.stderr
    value = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    documented = set(re.findall(r"`([^`\n]+)`", (ROOT / "docs/json.md").read_text(encoding="utf-8")))
    if case in RECORDS:
        assert keys_of(value) <= documented


def keys_of(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys_of, value))
    if not isinstance(value, dict):
        return set()
    # The keys below a run's parameters are those of a config.
    return {*value, *(key for name, each in value.items() if name != "parameters" for key in keys_of(each))}


def test_the_plan_has_every_run_with_its_partners(bnbench: Bnbench, places: dict[str, str]) -> None:
    plan = json.loads(bnbench("plan", places["CONFIG"], "--format", "json").stdout)
    assert (plan["epochs"], plan["axis"], plan["baseline"]) == (4, "network", "no_batch_norm")
    assert [(run["run"], run["arm"], run["paired_with"]) for run in plan["runs"]] == [
        *((1, "no_batch_norm", [3]), (2, "no_batch_norm", [4])),
        *((3, "batch_norm", [1]), (4, "batch_norm", [2])),
    ]
    assert [run["parameters"]["seed"] for run in plan["runs"]] == [0, 1, 0, 1]


def test_watch_has_the_numbers_of_the_tables(bnbench: Bnbench, places: dict[str, str]) -> None:
    import pandas as pd

    seen = json.loads(bnbench("watch", places["SWEEP"], "--once", "--format", "json").stdout)
    table = pd.read_csv(Path(places["SWEEP"]) / "metrics.csv")
    assert (seen["state"], seen["epochs"], seen["planned_epochs"]) == ("finished", 4, 4)
    assert [run["train_loss"] for run in seen["runs"]] == list(table.sort_values("run").train_loss)
    assert {run["status"] for run in seen["runs"]} == {"ok"}
    means = table.groupby("network").valid_accuracy.mean()
    assert {arm["arm"]: arm["mean_valid_accuracy"] for arm in seen["arms"]} == pytest.approx(dict(means))


def test_a_fault_leaves_stdout_empty(bnbench: Bnbench, places: dict[str, str], tmp_path: Path) -> None:
    for arguments in (
        *(("plan", tmp_path / "no.yaml"), ("watch", tmp_path, "--once"), ("networks", "nope"), ("datasets", "nope")),
        *(("validate", tmp_path / "no.yaml"), ("watch", places["SWEEP"])),
    ):
        done = bnbench(*arguments, "--format", "json")
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr
    done = bnbench("claims", "--format", "json", "show")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "bnbench claims show --format" in done.stderr
