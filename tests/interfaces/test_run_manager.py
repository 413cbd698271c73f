"""The tutorial's own loop, with one import changed."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from runner import RunBuilder, RunManager
from runner.errors import UserError
from runner.training.data.datasets import load
from runner.training.data.preprocessing import normalise
from tests.conftest import Bnbench


@pytest.fixture
def train_set() -> TensorDataset:
    data = load("digits", Path())
    return TensorDataset(normalise(data.train.images, (0.5,), (0.5,))[:250], data.train.labels[:250])


def tutorials_loop(m: RunManager, train_set: Any, *, with_batch: bool, epochs: int = 2) -> None:
    """As the tutorial writes it; only its device and its epochs are smaller."""
    trainsets = {"normal": train_set}
    networks = {
        "no_batch_norm": nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
        "batch_norm": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(784), nn.Linear(784, 10)),
    }
    params = OrderedDict(
        lr=[0.01],
        batch_size=[100],
        num_workers=[0],
        device=["cpu"],
        trainset=["normal"],
        network=list(networks.keys()),
    )
    for run in RunBuilder.get_runs(params):
        device = torch.device(run.device)
        network = networks[run.network].to(device)
        loader = DataLoader(trainsets[run.trainset], batch_size=run.batch_size, num_workers=run.num_workers)
        optimizer = torch.optim.Adam(network.parameters(), lr=run.lr)

        m.begin_run(run, network, loader)
        for _ in range(epochs):
            m.begin_epoch()
            for batch in loader:
                images = batch[0].to(device)
                labels = batch[1].to(device)
                preds = network(images)  # Pass Batch
                loss = F.cross_entropy(preds, labels)  # Calculate Loss
                optimizer.zero_grad()  # Zero Gradients
                loss.backward()  # Calculate Gradients
                optimizer.step()  # Update Weights
                if with_batch:
                    m.track_loss(loss, batch)
                else:
                    m.track_loss(loss)
                m.track_num_correct(preds, labels)
            m.end_epoch()
        m.end_run()


@pytest.mark.parametrize("with_batch", [True, False])
def test_the_tutorials_loop_writes_its_files_exactly(tmp_path: Path, train_set: Any, with_batch: bool) -> None:
    m = RunManager(tmp_path / "loop")
    tutorials_loop(m, train_set, with_batch=with_batch)
    m.save(str(tmp_path / "results"))
    text = (tmp_path / "results.csv").read_text()
    assert text.splitlines()[0] == (
        ",run,epoch,loss,accuracy,epoch duration,run duration,lr,batch_size,num_workers,device,trainset,network"
    )
    assert text == pd.DataFrame(m.run_data).to_csv()
    stored = (tmp_path / "results.json").read_text(encoding="utf-8")
    assert stored == json.dumps(m.run_data, ensure_ascii=False, indent=4)
    assert [(row["run"], row["epoch"]) for row in json.loads(stored)] == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert all(isinstance(row, OrderedDict) for row in m.run_data)


def test_rows_are_on_the_disk_before_the_loop_ends(tmp_path: Path, train_set: Any) -> None:
    m = RunManager(tmp_path / "loop")
    tutorials_loop(m, train_set, with_batch=True)
    table = pd.read_csv(tmp_path / "loop/metrics.csv")  # no save() has been called
    assert list(table.network) == ["no_batch_norm"] * 2 + ["batch_norm"] * 2
    assert list(table.train_loss) == [row["loss"] for row in m.run_data]
    assert list(table.step) == [3, 6, 3, 6]
    runs = pd.read_csv(tmp_path / "loop/runs.csv")
    assert list(runs.parameters) == [7850, 7850 + 2 * 784]


def test_the_known_faults_of_the_tutorials_copies_are_not_here(tmp_path: Path) -> None:
    images, labels = torch.eye(10), torch.arange(10)
    m = RunManager(tmp_path / "loop")
    (run,) = RunBuilder.get_runs(OrderedDict(batch_size=[8]))
    m.begin_run(run, nn.Linear(10, 10), DataLoader(TensorDataset(images, labels), batch_size=8))
    for _ in range(2):
        m.begin_epoch()
        m.track_loss(torch.tensor(1.0))
        m.track_num_correct(images[:8], labels[:8])
        m.track_loss(torch.tensor(6.0), (images[8:], labels[8:]))  # the last batch has 2, not 8
        m.track_num_correct(-images[8:], labels[8:])
        m.end_epoch()
    m.end_run()
    first, second = m.run_data
    assert first["loss"] == pytest.approx((8 * 1 + 2 * 6) / 10)
    assert first["accuracy"] == pytest.approx(0.8)
    assert second["epoch duration"] < second["run duration"]
    assert second["run duration"] > first["run duration"]
    assert len(m.run_data) == 2


def test_without_a_validation_set_compare_says_what_can_be_compared(tmp_path: Path, bnbench: Bnbench) -> None:
    m = RunManager(tmp_path / "loop")
    for run in RunBuilder.get_runs(OrderedDict(lr=[0.1, 0.2])):
        m.begin_run(run, nn.Linear(2, 2), [])
        m.begin_epoch()
        m.track_loss(torch.tensor(0.5), [torch.zeros(4, 2)])
        m.track_num_correct(torch.eye(4, 2), torch.zeros(4, dtype=torch.int64))
        m.end_epoch()
        m.end_run()
    m.save(str(tmp_path / "results"))
    hint = "No run has a valid_accuracy. train_accuracy works: --metric train_accuracy, or compare"
    shown = bnbench("compare", tmp_path / "loop").stdout
    assert hint in " ".join(shown.split())
    assert "No run has" not in bnbench("compare", tmp_path / "loop", "--metric", "train_accuracy").stdout


def test_misuse_is_said_clearly(tmp_path: Path) -> None:
    m = RunManager(tmp_path / "loop")
    with pytest.raises(UserError, match="call begin_run first"):
        m.save("x")
    (run,) = RunBuilder.get_runs(OrderedDict(lr=[1]))
    m.begin_run(run, nn.Linear(1, 1), [])
    m.begin_epoch()
    m.track_loss(torch.tensor(1.0))
    with pytest.raises(UserError, match="track_loss was called 1 times and track_num_correct 0 times"):
        m.end_epoch()
    again = RunManager(tmp_path / "loop")
    with pytest.raises(UserError, match=r"another process is writing|already holds a table"):
        again.begin_run(run, nn.Linear(1, 1), [])


def test_a_parameter_with_a_columns_name_does_not_overwrite_what_was_measured(tmp_path: Path) -> None:
    m = RunManager(tmp_path / "out")
    for run in RunBuilder.get_runs(OrderedDict(status=["warm", "cold"], train_loss=["mse"])):
        m.begin_run(run, nn.Linear(2, 2), [])
        m.begin_epoch()
        m.track_loss(torch.tensor(0.5), [torch.zeros(4, 2)])
        m.track_num_correct(torch.eye(4, 2), torch.zeros(4, dtype=torch.int64))
        m.end_epoch()
        m.end_run()
    before = [(tmp_path / "out" / name).read_bytes() for name in ("metrics.csv", "runs.csv")]
    m.save(str(tmp_path / "results"))
    assert [(tmp_path / "out" / name).read_bytes() for name in ("metrics.csv", "runs.csv")] == before
    assert b",0.5," in before[0]
