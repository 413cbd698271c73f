"""`bnbench try`: any network that somebody has written, without a config."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from runner import registry
from runner.errors import UserError
from runner.storage.tables import read_rows

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

NETWORK = """\
from __future__ import annotations

from typing import Literal

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.bn(self.conv(x)))


class MyNet(nn.Module):
    def __init__(self, width: int = 4, pool: Literal["mean", "max"] = "mean", in_channels=1, classes=10):
        super().__init__()
        self.stem, self.block, self.pool = nn.Conv2d(in_channels, width, 3, stride=2), Block(width), pool
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.block(self.stem(x)).flatten(2)
        return self.head(x.mean(2) if self.pool == "mean" else x.amax(2))


def make(*, width: int = 4):
    return MyNet(width)


def seven():
    return MyNet(classes=7)


answer = 42
instance = MyNet()


class Many(MyNet):
    def __init__(self, width: int, *rest, **more):
        super().__init__(width)
"""

QUICK = ("--dataset", "digits", "--device", "cpu", "--seeds", "2", "--epochs", "1", "--executor", "inline")


@pytest.fixture
def folder(write: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write("my_module.py", NETWORK).parent
    monkeypatch.chdir(path)
    return path


@pytest.mark.usefixtures("with_server")
def test_a_class_without_a_decorator_is_compared(bnbench: Bnbench, folder: Path) -> None:
    done = bnbench(
        "try", "my_module.py:MyNet", *QUICK, "--norms", "none,batch,group", "--set", "fixed.network.pool=max"
    )
    assert done.exit_code == 0, done.stderr
    assert "network MyNet pool=max, swap_norm none: replaced 1 norm layer, gave a bias to 1 layer" in done.stderr
    assert "network MyNet pool=max, swap_norm group: replaced 1 norm layer" in done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith(("batch ", "group "))]
    assert [row[-1] for row in rows] == ["yes", "yes"]
    assert "swap_norm none: replaced 1 norm layer, gave a bias to 1 layer." in " ".join(done.stdout.split())
    assert "the config of this comparison: results/try-MyNet/config.yaml" in done.stderr
    config = yaml.safe_load((folder / "results/try-MyNet/config.yaml").read_text())
    assert config["plugins"] == ["../../my_module.py:MyNet"]
    # The folder is one of `bnbench run`, and its config can be run again from elsewhere.
    again = bnbench("resume", folder / "results/try-MyNet")
    assert (again.exit_code, "6 of 6 runs are there already" in again.stderr) == (0, True)
    config |= {"plugins": ["my_module.py:MyNet"], "name": "again"}
    (folder / "again.yaml").write_text(yaml.safe_dump(config))
    assert bnbench("run", "again.yaml", "--executor", "process", "-q").exit_code == 0
    tables = [read_rows(folder / f"results/{name}/metrics.csv") for name in ("try-MyNet", "again")]
    losses = [sorted((row["run_id"], row["valid_loss"]) for row in table) for table in tables]
    assert losses[0] == losses[1]


OWN = """\
import torch
from runner import DataSet, Split, dataset
from torch import nn


@dataset("stripes", channels=3, height=8, width=8, classes=2)
def stripes(root, download):
    images = torch.zeros(64, 3, 8, 8, dtype=TYPE)
    images[::2, :, ::2] = 1
    return DataSet(Split(images, torch.arange(64) % 2), Split(images[:8], torch.arange(8) % 2))


class OwnNorm(nn.Module):
    def forward(self, x):
        return x / (1 + x.square().mean())


class Strange(nn.Module):
    def __init__(self, *, in_channels, classes):
        super().__init__()
        self.conv, self.norm, self.own = nn.Conv2d(in_channels, 4, 3), nn.BatchNorm2d(4), OwnNorm()
        self.head = nn.Linear(4, classes)

    def forward(self, x):
        return self.head(self.own(self.norm(self.conv(x))).mean((2, 3)))
"""


def test_a_data_set_of_ones_own_and_a_norm_layer_that_stays(bnbench: Bnbench, write: Write) -> None:
    file = write("own.py", OWN.replace("TYPE", "torch.uint8"))
    options = (*QUICK[2:], "--dataset", "stripes", "--plugin", file, "--out", file.parent)
    done = bnbench("try", f"{file}:Strange", *options)
    assert done.exit_code == 0, done.stderr
    said = "network Strange, swap_norm batch: kept 1 norm layer; not replaced: layer 'own' (OwnNorm: no 'is_norm"
    assert said in " ".join(done.stdout.split())
    assert "class Strange" in file.read_text()
    page = bnbench("networks", f"{file}:Strange", "--set", "in_channels=1")
    assert (page.exit_code, "bnbench fills in 'in_channels'" in page.stderr) == (2, True)


def test_float_images_are_refused(bnbench: Bnbench, write: Write) -> None:
    file = write("floats.py", OWN.replace("TYPE", "torch.float32").replace("stripes", "floats"))
    done = bnbench("try", f"{file}:Strange", *QUICK[2:], "--dataset", "floats", "--plugin", file, "--out", file.parent)
    assert done.exit_code == 2
    assert "data set 'floats': images are torch.float32; they must be torch.uint8" in done.stderr


def test_a_changed_file_is_seen(bnbench: Bnbench, folder: Path) -> None:
    assert bnbench("try", "my_module.py:make", *QUICK).exit_code == 0
    (folder / "my_module.py").write_text(NETWORK + "\n# changed\n")
    done = bnbench("try", "my_module.py:make", *QUICK, "--resume", "--set", "grid.seed=[0, 1, 2]")
    assert (done.exit_code, "my_module.py" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("my_module.py:MyNat",),
            "unknown class or function 'MyNat'; did you mean 'MyNet'? allowed: Block, Many, MyNet, make, seven",
        ),
        (("my_module.py:answer",), "unknown class or function 'answer'"),
        (("my_module.py:instance",), "unknown class or function 'instance'"),
        (("my_module.py:Many",), "network 'Many' needs 'network.width'"),
        (("other.py:Net",), "other.py: No such file or directory"),
        (("my_module.py",), "'my_module.py' is neither FILE.py:NAME nor the name of a network"),
        (("my_module:MyNet",), "'my_module:MyNet' is neither FILE.py:NAME nor the name of a network"),
        (("my_module.py:MyNet", "--set", "fixed.network.classes=7"), "bnbench fills in 'classes' from the data set"),
        (("my_module.py:seven",), "the network returned [2, 7] for a batch of 2; it must return [2, 10]"),
        (("lenet", "--norms", "none,none"), "--norms none,none: give two different norm layers or more"),
        (("lent",), "unknown network 'lent'; did you mean 'lenet'"),
        (("lenet", "--norms", "batch"), "--norms batch: give two different norm layers or more"),
        (("lenet", "--norms", "none,bach"), "unknown norm layer 'bach'; did you mean 'batch'"),
        (("my_module.py:MyNet", "--set", "fixed.network.in_channels=3"), "in_channels"),
        (("my_module.py:MyNet", "--set", "fixed.network.width=a"), "argument 'width': must be a whole number"),
        (
            ("no_batch_norm",),
            "the network has no norm layer that can be replaced; fixed.insert_norm={after: [Conv2d, Linear]}",
        ),
        (("torchvision", "--set", "fixed.network.model=resnet81"), "unknown model 'resnet81'; did you mean 'resnet18'"),
        (("lenet", "--fresh", "--resume"), "--resume and --fresh contradict each other"),
    ],
)
def test_wrong_input_is_one_error(bnbench: Bnbench, folder: Path, arguments: tuple[str, ...], message: str) -> None:
    done = bnbench("try", *arguments, *QUICK)
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (folder / "results/try-lenet/metrics.csv").exists()


def test_a_registered_network_and_one_without_norms(bnbench: Bnbench, folder: Path) -> None:
    insert = ("--set", "fixed.insert_norm={after: [Conv2d]}", "--norms", "keep,batch")
    done = bnbench("try", "no_batch_norm", *QUICK, *insert)
    assert done.exit_code == 0, done.stderr
    assert "network no_batch_norm, swap_norm batch: put 2 norm layers in" in done.stderr
    assert (folder / "results/try-no_batch_norm/runs.csv").exists()


def test_two_files_with_a_class_of_one_name(write: Write) -> None:
    for name in ("first.py", "second.py"):
        write(name, "from torch import nn\nclass Twin(nn.Linear):\n    pass\n")
    folder = write("empty.txt", "").parent
    with registry.network.temporary():
        registry.load_plugins((f"{folder}/first.py:Twin",))
        registry.load_plugins((f"{folder}/first.py:Twin",))
        with pytest.raises(UserError, match="two networks are called 'Twin'"):
            registry.load_plugins((f"{folder}/second.py:Twin",))
