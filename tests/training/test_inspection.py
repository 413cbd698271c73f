"""Saved weights and what `bnbench inspect` says of them. The oracles are torch's own layers in a plain loop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from torch.nn import functional as F

from runner.config.jobs import Job
from runner.config.run_spec import RunSpec
from runner.interfaces.cli.main import main
from runner.reporting.inspection_table import histogram
from runner.storage.checkpoints import Every, file_name, to_bytes
from runner.storage.rows import Checkpoint, RunResult
from runner.training.data.batches import batch_order
from runner.training.data.preprocessing import RunData, prepare
from runner.training.networks import build_network
from runner.training.options import TrainingOptions
from runner.training.train import train

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

CPU = torch.device("cpu")
CONFIG = """\
name: s
fixed: {network: notebook_mlp, dataset: digits, device: cpu, optimizer: sgd, lr: 0.1, batch_size: 100, epochs: 2}
grid: {network.norm: [none, notebook, batch]}
save_weights: true
"""
OPTIONS = ("--executor", "inline", "-q")
RUN = RunSpec(
    network="notebook_mlp",
    network_args={"norm": "batch"},
    dataset="digits",
    device="cpu",
    optimizer="sgd",
    lr=0.1,
    batch_size=100,
    epochs=2,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CONFIG, trained: run 1 has no norm, run 2 the notebook's, run 3 nn.BatchNorm1d. Read only."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "s.yaml").write_text(CONFIG)
    done = CliRunner().invoke(main, ["run", str(folder / "s.yaml"), "--out", str(folder), *OPTIONS])
    assert done.exit_code == 0, done.stderr
    return folder / "s"


@pytest.fixture
def digits() -> RunData:
    return prepare("digits", Path(), "normal", "held_out", None, CPU)


def weights(folder: Path, run: int) -> dict[str, Tensor]:
    """As a user reads them."""
    run_id = str(pd.read_csv(folder / "runs.csv", dtype=str).set_index("run")["run_id"][str(run)])
    state: dict[str, Tensor] = torch.load(folder / f"weights/{run_id}.pt", weights_only=True)
    return state


def column(text: str, heading: str) -> list[str]:
    """A column of the norm table by its heading: the cells below it, as far as there is a number of a feature."""
    lines = text.splitlines()
    top = next(number for number, line in enumerate(lines) if line.startswith("feature"))
    place = re.split(r" {2,}", lines[top]).index(heading)
    return [cells[place] for line in lines[top + 2 :] if (cells := re.split(r" {2,}", line))[0].isdecimal()]


# The numbers


def test_the_weights_are_those_of_a_plain_loop_and_the_inspection_has_them_to_the_bit(
    bnbench: Bnbench, trained: Path, digits: RunData
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 100), nn.BatchNorm1d(100), nn.ReLU(), nn.Linear(100, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for epoch in (1, 2):
        for index in batch_order(RUN, len(digits.train), epoch).split(100):
            optimizer.zero_grad()
            F.cross_entropy(network(digits.train.images[index]), digits.train.labels[index]).backward()
            optimizer.step()
    saved = weights(trained, 3)
    assert list(saved) == list(network.state_dict())
    for name, value in network.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-3, atol=1e-5)
    network.load_state_dict(saved)

    done = bnbench("inspect", trained, 3, "--format", "json")
    assert done.stderr == ""
    (norm,) = json.loads(done.stdout)["norms"]
    names = {"running_mean": "2.running_mean", "running_var": "2.running_var", "gamma": "2.weight", "beta": "2.bias"}
    for array, name in names.items():
        assert torch.equal(torch.tensor(norm[array]), saved[name])
    first = network[:2](digits.train.images[batch_order(RUN, len(digits.train), 1)[:100]]).detach()
    mean, var = first.mean(0), first.var(0, correction=0)
    torch.testing.assert_close(torch.tensor(norm["batch_mean"]), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(norm["batch_var"]), var, rtol=1e-4, atol=1e-5)
    moved = (mean - saved["2.running_mean"]) / saved["2.running_var"].sqrt()
    assert norm["mean_gap"] == pytest.approx((moved**2).mean().sqrt().item(), rel=1e-4)
    ratio = (var / saved["2.running_var"]).log()
    assert norm["var_gap"] == pytest.approx((ratio**2).mean().sqrt().item(), rel=1e-4)


def test_ten_moving_means_as_the_notebook_prints_them(bnbench: Bnbench, trained: Path) -> None:
    done = bnbench("inspect", trained, 2)
    saved = weights(trained, 2)
    for heading, name in (("running_mean", "running_mean"), ("running_var", "running_var"), ("γ", "weight")):
        assert column(done.stdout, heading) == [f"{value:.4f}" for value in saved[f"2.{name}"][:10].tolist()]
    (low,) = re.findall(r"^min +(\S+)", done.stdout, re.MULTILINE)
    assert low == f"{saved['2.running_mean'].min():.4f}"
    assert "NotebookBatchNorm(100, eps=1e-05, momentum=0.1, convention=notebook)" in done.stdout
    assert "network.norm notebook" in done.stdout
    assert "79,710 trainable parameters" in done.stdout


@pytest.mark.data
def test_the_notebooks_moving_means_on_mnist(bnbench: Bnbench, real_data: Path, tmp_path: Path) -> None:
    """Against the notebook's own functions, on its data, at its settings."""
    config = Path(__file__).parent.parent.parent / "configs/notebook_mlp.yaml"
    changed = ("save_weights=true", "grid.network.norm=[none, notebook]", "grid.seed=[0]", "fixed.train_samples=6400")
    options = [text for each in (*changed, "fixed.epochs=1") for text in ("--set", each)]
    options += ["--data-dir", str(real_data)]
    assert bnbench("run", config, "--out", tmp_path, *options, *OPTIONS).exit_code == 0
    done = bnbench("inspect", tmp_path / "notebook_mlp", 2, "--data-dir", real_data)

    run = RunSpec(network="notebook_mlp", network_args={"norm": "notebook"}, dataset="mnist")
    data = prepare("mnist", real_data, "half", "test", 6400, CPU)
    network = build_network(run)
    linear, last = network.get_submodule("1"), network.get_submodule("4")
    gamma, beta = network.get_parameter("2.weight"), network.get_parameter("2.bias")
    moving_mean = torch.zeros(100)
    parameters = [*linear.parameters(), gamma, beta, *last.parameters()]
    for index in batch_order(run, 6400, 1).split(64):
        x = linear(data.train.images[index].flatten(1))
        x_mean = torch.mean(x, dim=0, keepdim=True)
        x_var = torch.mean((x - x_mean) ** 2, dim=0, keepdim=True)
        x_hat = (x - x_mean) / torch.sqrt(x_var + 1e-5)
        moving_mean[:] = 0.1 * moving_mean + (1.0 - 0.1) * x_mean.detach()
        loss = F.cross_entropy(
            last((gamma.view_as(x_mean) * x_hat + beta.view_as(x_mean)).relu()), data.train.labels[index]
        )
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.data -= 0.1 * gradient
    printed = [float(cell) for cell in column(done.stdout, "running_mean")]
    assert printed == pytest.approx(moving_mean[:10].tolist(), abs=1e-3)
    assert len(printed) == 10


def test_layers_of_the_notebooks_cnn(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    text = CONFIG.replace("notebook_mlp", "notebook_cnn").replace("[none, notebook, batch]", "[batch]")
    assert bnbench("run", write("s.yaml", text), "--out", tmp_path, "--set", "fixed.epochs=1", *OPTIONS).exit_code == 0
    found = json.loads(bnbench("inspect", tmp_path / "s", 1, "--format", "json").stdout)
    assert [tuple(layer["shape"]) for layer in found["layers"]] == [
        *[(6, 28, 28)] * 3,
        (6, 14, 14),
        *[(16, 10, 10)] * 3,
        *[(16, 5, 5), (400,), (10,)],
    ]
    assert [layer["parameters"] for layer in found["layers"]] == [60, 12, 0, 0, 2416, 32, 0, 0, 0, 4010]
    assert [(norm["name"], len(norm["running_mean"])) for norm in found["norms"]] == [("1", 6), ("5", 16)]
    assert ": 6 features\n" in bnbench("inspect", tmp_path / "s", 1).stdout


def test_a_diverged_run_is_shown_and_its_json_is_json(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("s.yaml", CONFIG.replace("[none, notebook, batch]", "[batch]").replace("lr: 0.1", "lr: 1e38"))
    bnbench("run", config, "--out", tmp_path, *OPTIONS)
    done = bnbench("inspect", tmp_path / "s", 1)
    assert "\ndiverged after 1 of 2 epochs" in done.stdout
    assert "nan" in column(done.stdout, "running_mean")

    def refuse(word: str) -> Any:
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(bnbench("inspect", tmp_path / "s", 1, "--format", "json").stdout, parse_constant=refuse)
    assert None in found["norms"][0]["running_mean"]


HAND = """\
import torch
from torch import nn
from runner.registry import network


class Hand(nn.Module):
    is_norm = True

    def __init__(self, buffers):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(1, 5)), nn.Parameter(torch.zeros(1, 5))
        if buffers:
            self.register_buffer("moving_mean", torch.zeros(1, 5))
            self.register_buffer("moving_var", torch.zeros(1, 5))
        else:
            self.moving_mean, self.moving_var = torch.zeros(1, 5), torch.zeros(1, 5)

    def forward(self, x):
        if not self.training:
            return self.gamma * (x - self.moving_mean) / (self.moving_var + 1e-5).sqrt() + self.beta
        mean, var = x.mean(0, keepdim=True), x.var(0, keepdim=True, correction=0)
        self.moving_mean[:] = mean.detach()
        self.moving_var[:] = var.detach()
        return self.gamma * (x - mean) / (var + 1e-5).sqrt() + self.beta


@network("hand")
def hand(*, buffers: bool = True):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 5), Hand(buffers), nn.Linear(5, 10))
"""


def test_a_layer_by_hand_under_the_documents_names(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    """What `state_dict` does not hold is lost; to show its starting value as learned would be a lie."""
    write("hand.py", HAND)
    text = CONFIG.replace("notebook_mlp", "hand").replace(
        "network.norm: [none, notebook, batch]", "network.buffers: [true, false]"
    )
    config = write("s.yaml", "plugins: [hand.py]\n" + text)
    assert bnbench("run", config, "--out", tmp_path, *OPTIONS).exit_code == 0
    kept = bnbench("inspect", tmp_path / "s", 1)
    assert column(kept.stdout, "running_mean") == [
        f"{value:.4f}" for value in weights(tmp_path / "s", 1)["2.moving_mean"][0]
    ]
    assert len(column(kept.stdout, "batch mean")) == 5
    lost = bnbench("inspect", tmp_path / "s", 2)
    assert "layer 2: running_mean, running_var is not a buffer" in lost.stderr
    assert "Layer 2, Hand(): 5 features, no running statistics" in lost.stdout
    (tmp_path / "hand.py").write_text(HAND + "# since\n")
    assert "plugins ../hand.py changed since the training" in bnbench("inspect", tmp_path / "s", 1).stderr


# What lies in the folder


def test_the_tables_are_the_same_with_and_without(
    bnbench: Bnbench, trained: Path, write: Write, tmp_path: Path
) -> None:
    config = write("s.yaml", CONFIG.replace("save_weights: true\n", ""))
    assert bnbench("run", config, "--out", tmp_path, *OPTIONS).exit_code == 0
    plain = tmp_path / "s"
    assert not (plain / "weights").exists()
    assert (plain / "runs.csv").read_bytes() == (trained / "runs.csv").read_bytes()
    ours, theirs = (
        pd.read_csv(folder / "metrics.csv").drop(columns=["epoch_duration", "run_duration"])
        for folder in (plain, trained)
    )
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert (trained / "config.yaml").read_text() == (plain / "config.yaml").read_text() + "save_weights: true\n"


@pytest.mark.parametrize("seeds", [1, 2], ids=["alone", "stacked"])
def test_a_run_that_goes_on_from_a_checkpoint_ends_in_the_same_file(seeds: int, tmp_path: Path) -> None:
    runs = [RUN.changed(seed=seed) for seed in range(seeds)]

    def files(
        options: TrainingOptions, checkpoint: Path | None = None
    ) -> tuple[dict[str, bytes | None], list[Checkpoint]]:
        events = list(train(Job(tuple(runs), "grouped" if seeds > 1 else None), options, checkpoint))
        results = {event.run_id: event.weights for event in events if isinstance(event, RunResult)}
        return results, [event for event in events if isinstance(event, Checkpoint)]

    whole, (checkpoint,) = files(TrainingOptions(checkpoint_every=Every(epochs=1), save_weights=True))
    path = tmp_path / file_name(checkpoint.run_ids, 1)
    path.write_bytes(to_bytes(checkpoint))
    again, _ = files(TrainingOptions(save_weights=True), path)
    assert None not in whole.values()
    assert again == whole
    assert set(files(TrainingOptions())[0].values()) == {None}


def test_stacked_runs_leave_the_files_of_lone_ones(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write(
        "s.yaml",
        CONFIG.replace("[none, notebook, batch]", "[batch], seed: [0, 1]"),
    )
    for stack in ("on", "off"):
        done = bnbench("run", config, "--out", tmp_path / stack, "--stack", stack, "--workers", 1, *OPTIONS)
        assert done.exit_code == 0, done.stderr
    assert set(pd.read_csv(tmp_path / "on/s/runs.csv")["trained_as"]) == {"stack of 2"}
    for run in (1, 2):
        stacked, alone = (weights(tmp_path / stack / "s", run) for stack in ("on", "off"))
        assert list(stacked) == list(alone)
        for name in alone:
            torch.testing.assert_close(stacked[name], alone[name], rtol=1e-3, atol=1e-4)
    ours, theirs = (bnbench("inspect", tmp_path / stack / "s", 2).stdout for stack in ("on", "off"))
    assert [float(cell) for cell in column(ours, "γ")] == pytest.approx(
        [float(cell) for cell in column(theirs, "γ")], abs=1e-3
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "weights").iterdir())}


def test_weights_come_and_go_with_their_runs(bnbench: Bnbench, trained: Path, write: Write, tmp_path: Path) -> None:
    """Asked for later, lost, extended, and started over without."""
    expected = snapshot(trained)
    config, folder = write("s.yaml", CONFIG), tmp_path / "s"
    on = ("--out", tmp_path, "--resume", *OPTIONS)
    off = ("--set", "save_weights=false")
    assert (
        bnbench("run", config, "--out", tmp_path, *off, "--set", "grid.network.norm=[batch]", *OPTIONS).exit_code == 0
    )
    done = bnbench("inspect", folder, 1)
    assert done.exit_code == 2
    (command,) = re.findall(r"^  bnbench (.*)$", done.stderr, re.MULTILINE)
    assert bnbench(*command.split(), *OPTIONS).exit_code == 0  # what it says one should do
    assert bnbench("inspect", folder, 1).exit_code == 0
    assert bnbench("run", config, *on).exit_code == 0  # two more arms
    assert snapshot(folder) == expected
    lost = next((folder / "weights").iterdir())
    lost.unlink()
    (folder / "weights/.000000000000.pt.partial").write_bytes(b"of a kill")
    (folder / "weights/mine.pt").write_bytes(b"a user's")
    before = pd.read_csv(folder / "metrics.csv").set_index("run_id")
    assert bnbench("resume", folder, "--executor", "inline").exit_code == 0
    after = pd.read_csv(folder / "metrics.csv").set_index("run_id")
    again = (before["run_duration"] != after["run_duration"]).groupby("run_id").all()
    assert list(again[again].index) == [lost.stem]
    assert snapshot(folder) == expected | {"mine.pt": b"a user's"}
    assert bnbench("run", config, "--out", tmp_path, "--fresh", *off, *OPTIONS).exit_code == 0
    assert snapshot(folder) == {"mine.pt": b"a user's"}


def test_a_run_that_is_trained_again_leaves_no_old_weights(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write(
        "bad.py",
        "import os\nfrom torch import nn\nfrom runner.registry import network\n\n\n@network('bad')\ndef bad():\n"
        "    if os.environ.get('BAD'):\n        raise ValueError('no more')\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n",
    )
    text = CONFIG.replace("notebook_mlp", "bad").replace("network.norm: [none, notebook, batch]", "lr: [1.0e+38]")
    config = write("s.yaml", "plugins: [bad.py]\n" + text.replace("lr: 0.1, ", ""))
    bnbench("run", config, "--out", tmp_path, *OPTIONS)
    assert len(snapshot(tmp_path / "s")) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BAD", "1")
        assert bnbench("resume", tmp_path / "s", "--retry", "diverged", "--executor", "inline").exit_code == 1
    assert not (tmp_path / "s/weights").exists()
    done = bnbench("inspect", tmp_path / "s", 1)
    assert done.exit_code == 2
    assert "run 1 has no weights, its status is failed: ValueError: no more" in done.stderr


# What cannot be shown


def test_the_key_stands_at_the_top_level(bnbench: Bnbench, write: Write) -> None:
    config = write("s.yaml", CONFIG)
    done = bnbench("plan", config, "--set", "fixed.save_weights=true")
    assert done.exit_code == 2
    assert done.stderr.rstrip().endswith("'save_weights' is a key of the top level")
    assert "true or false, got 'yes'" in bnbench("plan", config, "--set", "save_weights=yes").stderr


@pytest.mark.parametrize("run", ["0", "4", "-1", "abc", ""])
def test_no_such_run(bnbench: Bnbench, trained: Path, run: str) -> None:
    done = bnbench("inspect", trained, "--", run)
    assert done.exit_code == 2
    assert done.stderr == f"{trained}: no run '{run}'; allowed: 1 to 3, or a run_id of runs.csv\n"


def test_a_run_by_its_id(bnbench: Bnbench, trained: Path) -> None:
    run_id = pd.read_csv(trained / "runs.csv", dtype=str).loc[2, "run_id"]
    assert bnbench("inspect", trained, run_id).stdout == bnbench("inspect", trained, 3).stdout


def test_weights_that_cannot_be_read_are_one_error(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config, folder = write("s.yaml", CONFIG), tmp_path / "s"
    assert (
        bnbench("inspect", folder, 1).stderr
        == f"{folder}: no sweep here (no config.yaml); allowed: a folder that 'bnbench run' wrote\n"
    )
    assert bnbench("run", config, "--out", tmp_path, "--set", "fixed.epochs=1", *OPTIONS).exit_code == 0
    runs = pd.read_csv(folder / "runs.csv", dtype=str)
    first, second, third = (folder / f"weights/{run_id}.pt" for run_id in runs["run_id"])
    first.write_bytes(second.read_bytes())
    second.write_bytes(second.read_bytes()[:1000])
    torch.save([1, 2], third)
    for run, what in ((1, "not the weights of this network"), (2, "damaged"), (3, "not the weights of this network")):
        done = bnbench("inspect", folder, run)
        assert done.exit_code == 2
        assert what in done.stderr
        assert f"bnbench resume {folder} trains run {run} again" in done.stderr
        assert done.stderr.count("\n") == 1
    third.unlink()
    assert f"{folder}: run 3 has no saved weights" in bnbench("inspect", folder, 3).stderr
    whole = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(whole[:3]))
    assert f"run 3 has not ended; bnbench resume {folder}" in bnbench("inspect", folder, 3).stderr


def test_changed_code_is_told(bnbench: Bnbench, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.training.environment.code", lambda: "f" * 64)
    done = bnbench("inspect", trained, 3)
    assert done.exit_code == 0
    assert done.stderr == "code changed since the training: the layers may compute something else\n"


def test_without_its_data_all_but_the_batch_is_shown(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write(
        "far.py",
        "from runner.training.data.datasets import load\nfrom runner.errors import UserError\n"
        "from runner.registry import dataset\n\n\n"
        "@dataset('far')\ndef far(root, download):\n    if not (root / 'there').exists():\n"
        "        raise UserError('far: the files are not there')\n    return load('digits', root)\n",
    )
    (tmp_path / "data").mkdir()
    (tmp_path / "data/there").touch()
    config = write(
        "s.yaml", "plugins: [far.py]\n" + CONFIG.replace("digits", "far").replace("[none, notebook, batch]", "[batch]")
    )
    there = ("--data-dir", tmp_path / "data")
    assert bnbench("run", config, "--out", tmp_path, *there, *OPTIONS).exit_code == 0
    whole, part = (
        bnbench("inspect", tmp_path / "s", 1, *options, "--format", "json")
        for options in (there, ("--data-dir", tmp_path))
    )
    assert part.exit_code == 0
    assert part.stderr == "no batch, and no output shapes: far: the files are not there\n"
    full, found = json.loads(whole.stdout), json.loads(part.stdout)
    assert (full["batch_samples"], found["batch_samples"]) == (100, None)
    assert found["norms"][0]["running_mean"] == full["norms"][0]["running_mean"]
    assert "batch_mean" not in found["norms"][0]
    table = bnbench("inspect", tmp_path / "s", 1, "--data-dir", tmp_path).stdout
    assert len(column(table, "running_var")) == 10


# How it looks


def test_it_fits_the_terminal_and_names_what_left(
    bnbench: Bnbench, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    wide = bnbench("inspect", trained, 2).stdout
    assert max(map(len, wide.splitlines()[2:])) <= 80
    monkeypatch.setenv("COLUMNS", "40")
    narrow = bnbench("inspect", trained, 2).stdout
    assert [line for line in narrow.splitlines() if "/" not in line and len(line) > 40] == []
    assert "Not shown at this width: batch mean, running_var, batch var." in " ".join(narrow.split())
    shown = re.findall(r"-?\d+\.\d{4}\b", wide)
    assert set(re.findall(r"-?\d+\.\d{4}\b", narrow)) < set(shown)
    assert len(re.findall(r"-?\d+\.\d{4}\b", wide)) > 6 * 13 - 1
    assert "\x1b" not in wide


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([0.0, 1.0], "█      █"),
        ([float(n) for n in range(80)], "████████"),
        ([0.0] * 16 + [7.0, 8.0], "█      ▁"),
        ([3.0, 3.0], "    █   "),
        ([], "–"),
    ],
)
def test_a_histogram_of_known_values(values: list[float], bars: str) -> None:
    assert histogram(values) == bars


def test_a_run_of_an_older_bnbench_is_not_said_to_be_unfinished(bnbench: Bnbench) -> None:
    folder = (
        Path(__file__).parent.parent.parent / "results/reference/tutorial"
    )  # from before `precision` was a parameter
    done = bnbench("inspect", folder, 1)
    assert (done.exit_code, "has another id" in done.stderr) == (2, True), done.stderr
