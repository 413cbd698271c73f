"""Fixtures: the real data where it is, small sweeps where it is not needed."""

from __future__ import annotations

import gc
import html
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from runner import registry
from runner.execution.executors.server import Server
from runner.interfaces.cli.main import main
from runner.training import isolation
from runner.training.kernels.library import Library, library

ROOT = Path(__file__).parent.parent

# torch warns of what a test machine cannot mend: no NVIDIA driver under a CUDA build.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# What training could work around is an error in tests.
os.environ["BNBENCH_STRICT"] = "1"

# As a run has: the same bits on every machine's number of cores, and no threads that wait for a busy core.
torch.set_num_threads(1)

# Tests start hundreds of programs. Those after the first find bnbench compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# What is imported and collected stays. Looking for garbage in it, again and again, costs seconds.
gc.disable()

# Trackio reads this once, when it is imported.
os.environ["TRACKIO_DIR"] = tempfile.mkdtemp(prefix="trackio-")

for name in ("COLUMNS", "NO_COLOR", "FORCE_COLOR"):
    os.environ.pop(name, None)  # a test says what terminal it is on
    os.unsetenv(name)  # readline sets COLUMNS without Python's knowledge


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--skip-only-cuda", action="store_true", help="fail tests that lack anything but a CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--skip-only-cuda") and not item.get_closest_marker("cuda"):
        report.outcome = "failed"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _registered() -> None:
    registry.load_plugins()


@pytest.fixture(autouse=True)
def _left_behind() -> Iterator[None]:
    """What a test's networks leave behind is a matter of this test."""
    yield
    isolation.left_behind.clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of MNIST and FashionMNIST."""
    folder = Path(os.environ.get("BNBENCH_DATA_DIR", ROOT / "data"))
    if not (folder / "FashionMNIST/raw/train-images-idx3-ubyte").exists():
        pytest.skip("MNIST and FashionMNIST are not here; set BNBENCH_DATA_DIR")
    return folder


@pytest.fixture(scope="session")
def native() -> Library:
    """The native kernels. The installation leaves them out without a word if they do not compile: here it is told."""
    found = library("auto")
    if found is None:
        assert not shutil.which("c++"), "there is a C++ compiler, but the native kernels are not compiled"
        pytest.skip("there is no C++ compiler, so there are no native kernels")
    return found


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """What a test registers, or loads as a plugin, is gone after it."""
    with registry.network.temporary(), registry.norm.temporary(), registry.dataset.temporary():
        yield
    for name in [name for name in sys.modules if name.startswith("bnbench_plugin_")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test finds no timings of another one."""
    monkeypatch.setenv("BNBENCH_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the workers of many tests. Each server takes seconds, because it imports torch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BNBENCH_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        started = Server()
    with closing(started):
        yield started


@pytest.fixture
def with_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What trains in processes uses this server. Tests of how a command ends cannot: theirs ends with the command."""
    monkeypatch.setattr("runner.execution.driver._server", lambda _: nullcontext(server))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report has the descriptions of its figures only: drawing them takes most of its time."""
    monkeypatch.setattr("runner.reporting.page.report.svg", lambda panel, _: html.escape(panel.description))


Bnbench = Callable[..., Result]


@pytest.fixture
def bnbench() -> Bnbench:
    """Call the command line in this process: `bnbench("run", config)` → result with exit_code, stdout, stderr."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)

    return call


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], Path]:
    """Write a text file below the test's folder."""

    def to(name: str, text: str) -> Path:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return to
