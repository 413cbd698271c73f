"""A results folder that was renamed or moved: it is resumed, compared and inspected as before."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Bnbench

Write = Callable[[str, str], Path]

PLUGIN = """\
from pathlib import Path

from torch import nn
from runner import network


class Once(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
        self.steps = 0

    def forward(self, x):
        self.steps += self.training
        if self.steps > 12 and not Path(STRUCK).exists():
            Path(STRUCK).touch()
            raise KeyboardInterrupt
        return self.inner(x)


@network("moved_once")
def moved_once():
    return Once()
"""
CONFIG = """\
plugins: [moved_once.py]
checkpoint_dir: shared
save_weights: true
fixed: {network: moved_once, dataset: digits, device: cpu, batch_size: 250, epochs: 4}
"""
OPTIONS = ("--executor", "inline", "--checkpoint-every", 1)


@pytest.fixture
def study(tmp_path: Path, bnbench: Bnbench) -> Path:
    """The folder of a study, with a sweep that was cut in its third epoch."""
    folder = tmp_path / "study"
    folder.mkdir()
    (folder / "moved_once.py").write_text(PLUGIN.replace("STRUCK", repr(str(tmp_path / "struck"))), encoding="utf-8")
    (folder / "o.yaml").write_text(CONFIG, encoding="utf-8")
    assert bnbench("run", folder / "o.yaml", "--out", folder / "results", *OPTIONS).exit_code == 130
    return folder


def in_a_new_process() -> None:
    for name in [name for name in sys.modules if name.startswith("bnbench_plugin_moved_once")]:
        del sys.modules[name]
    from runner import registry

    registry.network.pop("moved_once", None)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("study/results/o", "study/results/renamed"),
        ("study/results/o", "elsewhere/deep/below/o"),
        ("study/results", "study/archive"),
        ("study", "another/study"),
    ],
)
def test_it_goes_on_from_its_checkpoint(
    study: Path, bnbench: Bnbench, tmp_path: Path, source: str, target: str
) -> None:
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / source).rename(tmp_path / target)
    in_a_new_process()
    (file,) = tmp_path.rglob("config.yaml")
    folder = file.parent
    done = bnbench("resume", folder, *OPTIONS)
    assert done.exit_code == 0, done.stderr
    assert f"{folder.name}: 1 runs, 4 epochs; starting" in done.stderr
    assert "1 go on from a checkpoint" in done.stderr
    assert f"name: {folder.name}\n" in file.read_text(encoding="utf-8")
    assert not list(tmp_path.rglob("shared/*"))
    assert study.exists() == (source != "study")
    # Now everything is found from its new place.
    in_a_new_process()
    for arguments in (("resume", folder, *OPTIONS), ("compare", folder), ("inspect", folder, "1")):
        again = bnbench(*arguments)
        assert again.exit_code == 0, again.stderr
        assert "changed since the training" not in again.stderr


def test_a_copy_has_checkpoints_of_its_own(study: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    shutil.copytree(study / "results", tmp_path / "study/copied")
    in_a_new_process()
    done = bnbench("resume", tmp_path / "study/copied/o", *OPTIONS)
    assert (done.exit_code, "; 0 go on from a checkpoint" in done.stderr) == (0, True), done.stderr
    assert len(list(study.glob("shared/*"))) == 1  # those of the original are still there


def test_a_name_that_no_sweep_can_have(study: Path, bnbench: Bnbench) -> None:
    (study / "results/o").rename(study / "results/o (2)")
    done = bnbench("resume", study / "results/o (2)", *OPTIONS)
    assert (done.exit_code, "rename the folder to resume its sweep; a name has 1 to 64" in done.stderr) == (2, True)


def test_only_a_sweep_that_needs_it_records_its_place(study: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    environment = json.loads((study / "results/o/environment.json").read_text(encoding="utf-8"))
    assert environment["folder"] == str(study / "results/o")
    plain = tmp_path / "plain.yaml"
    plain.write_text("fixed: {network: notebook_mlp, dataset: digits, device: cpu, epochs: 1}", encoding="utf-8")
    assert bnbench("run", plain, "--out", tmp_path / "out", *OPTIONS).exit_code == 0
    assert "folder" not in json.loads((tmp_path / "out/plain/environment.json").read_text(encoding="utf-8"))
