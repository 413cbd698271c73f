"""The configs that come with bnbench are found by their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from runner.config import built_in
from runner.errors import UserError

ROOT = Path(__file__).parent.parent.parent

Bnbench = Callable[..., Result]


def test_all_of_them_have_names_and_a_line(bnbench: Bnbench) -> None:
    files = {path.relative_to(ROOT / "configs").as_posix() for path in (ROOT / "configs").glob("**/*.yaml")}
    assert {f"{name}.yaml" for name in built_in.names()} == files
    lines = bnbench("configs").stdout.splitlines()
    assert [line.split()[0] for line in lines] == built_in.names()
    assert all(len(line.split()) > 3 and len(line) <= 120 for line in lines)


def test_one_is_printed_as_it_is(bnbench: Bnbench) -> None:
    text = (ROOT / "configs/claims/eps.yaml").read_text(encoding="utf-8")
    assert bnbench("configs", "claims/eps").stdout == text
    done = bnbench("configs", "tutorail")
    assert done.exit_code == 2
    assert "unknown built-in config 'tutorail'; did you mean 'tutorial'?" in done.stderr


@pytest.mark.parametrize("command", ["plan", "validate", "run"])
def test_commands_take_a_name(command: str, bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()  # A folder is no config.
    small = ("--set", "grid.seed=[0]", "--set", "fixed.epochs=1", "--set", "fixed.train_samples=200")
    done = bnbench(command, "quickstart", *small, *(["--executor", "inline"] if command == "run" else []))
    assert done.exit_code == 0, done.stderr
    assert done.stderr.splitlines()[0] == "config: 'quickstart', which is built in"


def test_a_file_of_the_name_wins(bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tutorial").write_text("fixed: {network: lenet}\ngrid: {seed: [7]}\n", encoding="utf-8")
    done = bnbench("plan", "tutorial")
    assert "seed=7" in done.stdout
    assert done.stderr == "config: the file tutorial, not the built-in config of this name\n"


def test_neither_a_file_nor_a_name() -> None:
    with pytest.raises(UserError, match=r"^tutorail: no such file, and unknown built-in config 'tutorail'; did you"):
        built_in.find(Path("tutorail"))
    # This one is a file: the error comes when it is read.
    assert built_in.find(Path("tutorail.yaml")) == (Path("tutorail.yaml"), "")
