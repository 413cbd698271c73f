"""One arm never mixes two versions of a network without a word: what a plugin consists of, and who notices a change."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.execution.executors.executor import Context
from runner.execution.executors.process import process
from runner.registry import load_plugins
from runner.storage import plugin_files
from runner.training import environment
from runner.training.options import TrainingOptions

Bnbench = Callable[..., Result]
Edit = Callable[[str, str, str], None]

FILES = {
    "mine.py": """\
import importlib
from bnbench import network
from torch import nn
from own_helper import WIDTH
from own_package.blocks import block
import own_namespace.deep
importlib.import_module("own_hidden")

@network("mine")
def mine(*, width: int = 8):
    import own_late
    return nn.Sequential(nn.Flatten(), *block(WIDTH), nn.Linear(WIDTH, own_late.CLASSES))
""",
    "own_helper.py": "import json, numpy\nWIDTH = 8\n",
    "own_package/__init__.py": "",
    "own_package/blocks.py": "from . import parts\ndef block(width):\n    return parts.layers(width)\n",
    "own_package/parts.py": "from torch import nn\ndef layers(width):\n    return [nn.Linear(784, width), nn.ReLU()]\n",
    "own_package/unused.py": "",
    "own_namespace/deep.py": "DEEP = 1\n",
    "own_hidden.py": "HIDDEN = 1\n",
    "own_late.py": "from own_later import CLASSES\n",
    "own_later.py": "CLASSES = 10\n",
}
FIXED = "dataset: digits, device: cpu, epochs: 1, batch_size: 250"
CONFIG = f"""\
name: all
plugins: [mine.py]
contrast: {{axis: network.width, baseline: 8}}
fixed: {{network: mine, {FIXED}}}
grid: {{network.width: [8, 9], seed: [0]}}
"""
OPTIONS = ("--executor", "inline", "-q")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plugin with modules of its own, and a config."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "all.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


@pytest.fixture
def trained(bnbench: Bnbench, folder: Path) -> Path:
    done = bnbench("run", folder / "all.yaml", "--out", folder, *OPTIONS)
    assert done.exit_code == 0, done.stderr
    return folder


def hashes(folder: Path) -> list[str]:
    return list(pd.read_csv(folder / "all/runs.csv", dtype=str, keep_default_na=False)["code_hash"])


def test_all_files_of_a_plugin_are_its_own_and_those_that_it_imports(folder: Path) -> None:
    load_plugins((str(folder / "mine.py"),))
    found = environment.digests([str(folder / "mine.py")], folder)
    assert sorted(found) == sorted(set(FILES) - {"own_package/unused.py"})
    assert all(len(digest) == 64 for digest in found.values())


def test_every_change_of_a_module_is_refused_by_name(bnbench: Bnbench, trained: Path) -> None:
    for name in ("own_helper.py", "own_package/parts.py", "own_namespace/deep.py", "own_hidden.py", "own_later.py"):
        text = (trained / name).read_text()
        (trained / name).write_text(f"{text}# since\n")
        for refused in (
            bnbench("run", trained / "all.yaml", "--out", trained, "--resume", *OPTIONS),
            bnbench("resume", trained / "all", *OPTIONS),
        ):
            assert refused.exit_code == 2, name
            assert f"(plugins ../{name}: " in refused.stderr
            assert "use --allow-changed to continue" in refused.stderr
        (trained / name).write_text(text)
    assert bnbench("resume", trained / "all", *OPTIONS).exit_code == 0


def test_a_module_that_came_later_is_a_change(bnbench: Bnbench, folder: Path) -> None:
    plugin = folder / "mine.py"
    plugin.write_text("try:\n    import own_extra\nexcept ImportError: pass\n" + plugin.read_text())
    assert bnbench("run", folder / "all.yaml", "--out", folder, *OPTIONS).exit_code == 0
    (folder / "own_extra.py").write_text("")
    refused = bnbench("resume", folder / "all", *OPTIONS)
    assert refused.exit_code == 2
    assert "(plugins ../own_extra.py: none then, e3b0c44298fc now)" in refused.stderr


def net(name: str, width: int) -> str:
    layers = f"nn.Flatten(), nn.Linear(784, {width}), nn.Linear({width}, 10)"
    imports = "from runner import network\nfrom torch import nn\n"
    return f"{imports}@network('{name}')\ndef net():\n    return nn.Sequential({layers})\n"


def test_plugins_of_one_name_in_two_folders_are_two(bnbench: Bnbench, tmp_path: Path) -> None:
    for name, width in (("a", 8), ("b", 9)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "net.py").write_text(net(name, width))
    config = tmp_path / "all.yaml"
    config.write_text(f"plugins: [a/net.py, b/net.py]\nfixed: {{{FIXED}}}\ngrid: {{network: [a, b]}}\n")
    assert bnbench("run", config, "--out", tmp_path, *OPTIONS).exit_code == 0
    (tmp_path / "a/net.py").write_text(net("a", 30))
    refused = bnbench("run", config, "--out", tmp_path, "--resume", *OPTIONS)
    assert refused.exit_code == 2
    assert "(plugins ../a/net.py: " in refused.stderr


def test_a_plugin_that_is_replaced_is_a_change(bnbench: Bnbench, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(net("net", 10))
    (tmp_path / "two.py").write_text(net("net", 33))
    config = tmp_path / "all.yaml"
    text = f"plugins: [one.py]\nfixed: {{network: net, {FIXED}}}\ngrid: {{seed: [0]}}\n"
    config.write_text(text)
    assert bnbench("run", config, "--out", tmp_path, *OPTIONS).exit_code == 0
    forget()
    config.write_text(text.replace("one.py", "two.py").replace("[0]", "[0, 1]"))
    refused = bnbench("run", config, "--out", tmp_path, "--resume", *OPTIONS)
    assert refused.exit_code == 2
    assert "plugins ../one.py: " in refused.stderr
    assert "plugins ../two.py: none then, " in refused.stderr
    # The table says it, also where it is allowed.
    allowed = bnbench("run", config, "--out", tmp_path, "--resume", "--allow-changed", *OPTIONS)
    assert allowed.exit_code == 0
    table = pd.read_csv(tmp_path / "all/runs.csv", dtype=str)
    assert list(table["parameters"]) == ["7960", "26245"]
    first, second = table["code_hash"]
    assert first != second
    note = "1 of 2 runs used two.py as well and did not use one.py (code_digests in runs.csv)."
    assert note in " ".join(allowed.stdout.split())


def forget() -> None:
    """Forget the plugins that this process has imported."""
    from runner import registry

    registry.network.pop("net")
    for name in [name for name in sys.modules if name.startswith("bnbench_plugin_")]:
        del sys.modules[name]


def test_runs_of_one_code_have_one_hash_wherever_the_files_are(
    bnbench: Bnbench, trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = hashes(trained)
    assert first == second
    assert len(first) == 16
    other = tmp_path_factory.mktemp("other")
    assert bnbench("run", trained / "all.yaml", "--out", other / "deeper", *OPTIONS).exit_code == 0
    assert hashes(other / "deeper") == [first, second]
    compared = bnbench("compare", trained / "all")
    assert "code" not in compared.stdout
    exported = bnbench("compare", trained / "all", "--format", "csv")
    assert list(pd.read_csv(io.StringIO(exported.stdout))["n"]) == [1, 1]


def test_code_that_only_shows_numbers_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    read_bytes = Path.read_bytes

    def note(path: Path) -> bytes:
        read.append("/".join(path.parts[-3:]))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", note)
    assert len(environment.code()) == 64
    for name in ("runner/config/run_spec.py", "training/kernels/kernels.cpp", "experiments/networks/lenet.py"):
        assert name in read
    assert "runner/registry.py" in {"/".join(name.split("/")[-2:]) for name in read}
    assert not [name for name in read if {"reporting", "interfaces", "analysis"} & set(name.split("/"))]


CHANGING = """\
import os, signal
from pathlib import Path
from runner import network
from torch import nn
import own_changing

class Kills(nn.Flatten):
    def forward(self, images):
        helper = Path(own_changing.__file__)
        helper.write_text(helper.read_text() + "# since\\n")
        os.kill(os.getpid(), signal.SIGKILL)

@network("kills")
def kills(): return nn.Sequential(Kills(), nn.Linear(784, 10))
"""


def test_a_worker_that_finds_other_code_than_the_driver_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "changing.py"
    plugin.write_text(CHANGING)
    (tmp_path / "own_changing.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    load_plugins((str(plugin),))
    monkeypatch.delitem(sys.modules, "own_changing")
    fixed: dict[str, Any] = {"dataset": "digits", "device": "cpu", "epochs": 1}
    jobs = [Job((RunSpec(network=name, **fixed),)) for name in ("kills", "notebook_mlp")]
    options = TrainingOptions(tmp_path, (str(plugin),), plugins_digest=plugin_files.digest([str(plugin)]))
    events = process(jobs, Context(options, workers=1))
    assert next(events).error == "the worker process died (killed by SIGKILL)"  # type: ignore[union-attr]
    with pytest.raises(UserError, match="a plugin, or a module that it imports, has changed since this command began"):
        next(events)
