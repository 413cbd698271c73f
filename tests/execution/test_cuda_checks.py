"""Layers that are a problem on CUDA are named before anything is trained, also by a machine without a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import nn

from runner.execution import cuda_checks, preflight
from runner.training.cuda_guard import Finding

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

PLUGIN = """\
from runner import network
from torch import nn

@network("mine")
def mine(*, layer: str = "reflect", size: int = 3):
    inner = {
        "reflect": lambda: [nn.ReflectionPad2d(1)],
        "pool": lambda: [nn.AdaptiveAvgPool2d(size)],
        "functions": lambda: [Waits()],
        "raises": lambda: [nn.ReflectionPad2d(1), nn.Linear(1, 1)],
        "unbuildable": lambda: [nn.Conv2d(0, 0, 0)],
    }[layer]()
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), *inner, nn.Flatten(), Head())

class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 10)

    def forward(self, x):
        return self.linear(x.unflatten(1, (4, -1)).mean(2))

class Waits(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x
"""

CONFIG = """\
plugins: [mine.py]
fixed: {dataset: digits, epochs: 1, batch_size: 250, network: mine, device: cuda}
grid: {network.layer: [LAYERS], seed: [0, 1]}
"""

REFLECT = (
    "network 'mine' (layer=reflect), layer '2' (ReflectionPad2d): it is not deterministic on CUDA "
    "(reflection_pad2d_backward); "
    "pad with zeros, or set deterministic: false"
)
POOL = (
    "network 'mine' (layer=pool), layer '2' (AdaptiveAvgPool2d): it is not deterministic on CUDA "
    "(_adaptive_avg_pool2d_backward); "
    "use nn.AdaptiveAvgPool2d or nn.AdaptiveMaxPool2d with a size that divides its input's height and width, "
    "or set deterministic: false"
)
WAITS = (
    "network 'mine' (layer=functions), layer '2' (Waits): no CUDA graph, because it reads a value on the host "
    "(.item(), or a condition on a tensor); compute with tensors, such as torch.where"
)


FINE = "on CUDA: no layer of the networks is refused or slower\n"


@pytest.fixture
def config(write: Write) -> Callable[..., Path]:
    def of(*layers: str) -> Path:
        write("mine.py", PLUGIN)
        return write("c.yaml", CONFIG.replace("LAYERS", ", ".join(layers)))

    return of


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine seems to have a GPU."""
    monkeypatch.setattr(preflight, "resolve_device", lambda name: torch.device("cuda" if name == "auto" else name))


Config = Callable[..., Path]

without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


@pytest.mark.parametrize(
    ("layer", "line"),
    [
        ("reflect", f"refused on CUDA: {REFLECT}"),
        ("pool", f"refused on CUDA: {POOL}"),
        ("functions", f"slower on CUDA: {WAITS}"),
    ],
)
def test_plan_names_the_layer_and_the_remedy(bnbench: Bnbench, config: Config, layer: str, line: str) -> None:
    planned = bnbench("plan", config(layer), "--device", "cuda")
    assert planned.exit_code == 0, planned.stderr
    assert [text for text in planned.stdout.splitlines() if "on CUDA" in text] == [line]


@without_gpu
def test_without_a_gpu_validate_says_so(bnbench: Bnbench, config: Config) -> None:
    refused = bnbench("validate", config("reflect"), "--device", "cuda")
    assert (refused.exit_code, "device 'cuda' is not on this machine" in refused.stderr) == (2, True)


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "auto"])
def test_validate_and_run_refuse_what_is_not_deterministic(
    bnbench: Bnbench, config: Config, tmp_path: Path, device: str
) -> None:
    path = config("reflect", "pool")
    for command in (("validate", path), ("run", path, "--out", tmp_path / "out", "-q")):
        refused = bnbench(*command, "--device", device)
        assert refused.exit_code == 2
        assert (refused.stderr.count(REFLECT), refused.stderr.count(POOL)) == (1, 1)
        assert "c.yaml:2:" in refused.stderr
    assert not (tmp_path / "out/c").exists()


@pytest.mark.usefixtures("_gpu")
def test_validate_accepts_what_has_a_deterministic_form(bnbench: Bnbench, config: Config) -> None:
    accepted = bnbench("validate", config("pool"), "--set", "fixed.network.size=7")
    assert (accepted.exit_code, accepted.stdout) == (0, FINE + "c: 2 runs, no faults\n"), accepted.stderr


@pytest.mark.usefixtures("_gpu")
def test_a_run_that_need_not_be_deterministic_is_accepted(bnbench: Bnbench, config: Config) -> None:
    accepted = bnbench("validate", config("reflect", "pool"), "--set", "fixed.deterministic=false")
    assert (accepted.exit_code, accepted.stdout) == (0, FINE + "c: 4 runs, no faults\n"), accepted.stderr


@pytest.mark.usefixtures("_gpu")
def test_what_no_graph_can_record_is_a_line_and_no_error(bnbench: Bnbench, config: Config) -> None:
    accepted = bnbench("validate", config("functions"))
    assert (accepted.exit_code, accepted.stdout) == (
        0,
        f"slower on CUDA: {WAITS}\nc: 2 runs, no faults\n",
    ), accepted.stderr


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("layer", ["raises", "unbuildable"])
def test_a_network_that_raises_is_no_fault_of_the_config(bnbench: Bnbench, config: Config, layer: str) -> None:
    accepted = bnbench("validate", config(layer))
    assert accepted.exit_code == 0, accepted.stderr
    line, last = accepted.stdout.splitlines()
    assert line.startswith(
        f"on CUDA: network 'mine' (layer={layer}) was not checked, because its training step fails ("
    )
    assert last == "c: 2 runs, no faults"


def test_a_network_is_checked_once_and_only_for_cuda(
    bnbench: Bnbench, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[nn.Module] = []

    def check(network: nn.Module, *_: object) -> list[Finding]:
        checked.append(network)
        return []

    monkeypatch.setattr(cuda_checks, "findings", check)
    path = config("reflect", "pool")
    assert bnbench("validate", path, "--device", "cpu").exit_code == 0
    assert bnbench("plan", path, "--device", "cpu").exit_code == 0
    assert checked == []
    assert bnbench("plan", path, "--device", "cuda").exit_code == 0
    assert len(checked) == 2


def test_plan_says_that_a_network_was_not_checked(bnbench: Bnbench, config: Config, tmp_path: Path) -> None:
    path = config("reflect")
    planned = bnbench("plan", path, "--device", "cuda", "--data-dir", tmp_path, "--set", "fixed.dataset=mnist")
    assert planned.exit_code == 0
    assert "on CUDA: network 'mine' (layer=reflect) was not checked, because its data are missing (" in planned.stdout
