"""The config in a results folder, damaged: one clear message, whatever reads it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.config import grid
from runner.config.resolved import resolved
from runner.config.run_spec import LATER

Bnbench = Callable[..., Result]

REFERENCE = Path(__file__).parent.parent.parent / "results/reference/tutorial"

THOUSAND = list(range(1, 1001))

DAMAGES = {
    "grid: 5": "grid: must be a mapping, got 5",
    "grid: {seed: 5}": "seed: expected a list",
    "grid: {seed: [0], lr: [{a: 1}]}": "lr: must be a number",
    "grid: {zip: {lr: [1, 2], seed: [1]}}": "the lists must be equally long",
    "grid: {zip: [1]}": "expected a mapping of equally long lists",
    "grids: [5]": "grids.0: must be a mapping",
    "grid: {seed: [0, 1]}\ncontrast: abc": "contrast: must be",
    "grid: {seed: [0, 1]}\ncontrast: {axis: [1], baseline: 1}": "contrast.axis: must be a text",
    "grid: {seed: [0, 1]}\nexclude: [5]": "exclude.0: must be a mapping",
    "grid: {seed: [0, 1]}\nname: [1]": "name: must be 1 to 64 letters",
    'grid: {seed: [0, 1]}\nname: "a\\x1b[2J"': "has a control character or a surrogate",
    f"grid: {{seed: {THOUSAND}, lr_step: {THOUSAND}, threads: {THOUSAND}}}": "1,000,000,000 runs",
    "grid: {epochs: [abc]}": "epochs: must be a whole number",
}


@pytest.mark.parametrize("command", [("compare",), ("watch", "--once")], ids=["compare", "watch"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage[:60])
def test_a_damaged_config_is_one_message(
    bnbench: Bnbench, tmp_path: Path, damage: str, command: tuple[str, ...]
) -> None:
    folder = tmp_path / "tutorial"
    shutil.copytree(REFERENCE, folder)
    fixed = "" if "epochs" in damage else "epochs: 10, "
    name = "" if "name:" in damage else "name: tutorial\n"
    (folder / "config.yaml").write_text(f"{name}fixed: {{{fixed}network: batch_norm}}\n{damage}\n")
    done = bnbench(*command, folder)
    assert done.exit_code == 2
    assert done.stderr.startswith(f"{folder / 'config.yaml'}:")
    assert DAMAGES[damage] in done.stderr


def test_a_config_without_epochs_is_not_the_config_of_a_sweep(bnbench: Bnbench, tmp_path: Path) -> None:
    folder = tmp_path / "tutorial"
    shutil.copytree(REFERENCE, folder)
    (folder / "config.yaml").write_text("name: tutorial\nfixed: {network: batch_norm}\ngrid: {seed: [0]}\n")
    done = bnbench("watch", "--once", folder)
    assert done.exit_code == 2
    assert "it has no epochs" in done.stderr


def test_a_plugin_is_not_needed_to_read_a_config() -> None:
    config = resolved("name: x\nplugins: [gone.py]\nfixed: {network: mine, network.a: 1, epochs: 3}", "config.yaml")
    later = {name: list(value) if isinstance(value, tuple) else value for name, value in LATER.items()}
    assert list(grid.expand(config)) == [{**later, "network": "mine", "network.a": 1, "epochs": 3}]


def test_helpers_are_read_as_their_values() -> None:
    text = "name: x\nfixed: {network: mine, epochs: 3}\ngrid: {seed: {range: 3}}\nexclude: [{seed: 1}]"
    assert [run["seed"] for run in grid.expand(resolved(text, "config.yaml"))] == [0, 2]
