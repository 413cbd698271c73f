"""What the options of compare, report and plot show of a sweep."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from runner.interfaces.cli.main import main
from runner.storage.results import load
from tests.conftest import Bnbench

CONFIG = """
name: rates
contrast: {axis: network.norm, baseline: none, smallest_effect: 0.005}
fixed: {dataset: digits, network: notebook_mlp, train_samples: 100, epochs: 2, device: cpu, optimizer: sgd}
grids:
  - {network.norm: [none, batch, layer], lr: [0.1, 0.5], batch_size: [50], seed: {range: 3}}
  - {network.norm: [none, batch, layer], batch_size: [25], seed: {range: 3}}
"""


@pytest.fixture(scope="module")
def rates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained sweep: two learning rates in one grid, and the default of 0.01 in the other."""
    out = tmp_path_factory.mktemp("out")
    (out / "rates.yaml").write_text(CONFIG)
    arguments = ["run", str(out / "rates.yaml"), "--out", str(out), "--executor", "inline", "-q"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return out / "rates"


def test_a_parameter_that_one_grid_leaves_out_has_its_default(rates: Path, bnbench: Bnbench) -> None:
    assert set(load(rates).runs["lr"]) == {0.1, 0.5, 0.01}
    done = bnbench("plot", rates, "learning-rate", "-o", rates / "lr.svg")
    assert done.exit_code == 0, done.stderr


def test_another_baseline_is_named(rates: Path, bnbench: Bnbench) -> None:
    text = bnbench("compare", rates, "--baseline", "batch").stdout
    assert "difference of each network.norm to the baseline batch" in " ".join(text.split())
    assert "The baseline batch was chosen for this table; that of the config is none." in " ".join(text.split())
    default = bnbench("compare", rates, "--baseline", "none").stdout
    assert default == bnbench("compare", rates).stdout
    assert "was chosen" not in default
    refused = bnbench("compare", rates, "--baseline", "batsh")
    assert (refused.exit_code, "unknown network.norm 'batsh'; did you mean 'batch'?" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--metric", "accuracy", "unknown metric 'accuracy'; did you mean 'valid_accuracy'? allowed: "),
        ("--metric", "loss", "unknown metric 'loss'; did you mean 'valid_loss'? allowed: "),
        ("--sort", "foo", "unknown column 'foo'; allowed: "),
        ("--sort", "diference", "unknown column 'diference'; did you mean 'difference'? allowed: "),
    ],
)
def test_a_wrong_name_gets_the_right_one_or_none(
    rates: Path, bnbench: Bnbench, option: str, name: str, message: str
) -> None:
    done = bnbench("compare", rates, option, name)
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_only_the_runs_that_are_asked_for_are_compared(rates: Path, bnbench: Bnbench) -> None:
    table = pd.read_csv(io.StringIO(bnbench("compare", rates, "--where", "lr=0.1", "--format", "csv").stdout))
    everything = pd.read_csv(io.StringIO(bnbench("compare", rates, "--format", "csv").stdout))
    chosen = everything[(everything["lr"] == 0.1) & everything["own_best_lr"].isna()]
    assert table["mean"].tolist() == chosen["mean"].tolist()
    refused = bnbench("compare", rates, "--where", "lr=7")
    assert (refused.exit_code, "no run with lr 7; there are 0.1, 0.5, 0.01" in refused.stderr) == (2, True)


def test_a_parameter_that_is_given_twice_is_an_error(rates: Path, bnbench: Bnbench) -> None:
    refused = bnbench("compare", rates, "--where", "lr=0.1", "--where", "lr=0.5")
    assert (refused.exit_code, "a parameter is given twice" in refused.stderr) == (2, True)


def test_several_metrics_make_several_tables(rates: Path, bnbench: Bnbench) -> None:
    both = ("--metric", "valid_loss", "--metric", "test_accuracy", "--where", "lr=0.5")
    text = bnbench("compare", rates, *both).stdout
    assert text.index("valid_loss at the last epoch") < text.index("test_accuracy at the last epoch")
    records = json.loads(bnbench("compare", rates, *both, "--format", "json").stdout)
    assert [record["metric"] for record in records] == ["valid_loss"] * 3 + ["test_accuracy"] * 3
    table = pd.read_csv(io.StringIO(bnbench("compare", rates, *both, "--format", "csv").stdout))
    assert table["mean"].tolist() == [record["mean"] for record in records]


@pytest.mark.usefixtures("undrawn")
def test_the_page_shows_the_metric_and_the_epoch_that_are_asked_for(
    rates: Path, bnbench: Bnbench, tmp_path: Path
) -> None:
    """The test set is shown, while the validation set chose the learning rate."""
    page = tmp_path / "page.html"
    few = ("--where", "batch_size=50", "-o", page)
    assert bnbench("report", rates, "--metric", "test_accuracy", *few).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "test_accuracy at the last epoch" in text
    assert "that of the highest mean valid_accuracy at the last epoch" in text
    assert "Test accuracy at the last epoch by learning rate" in text
    assert "Hodges–Lehmann" in text
    assert bnbench("report", rates, "--at", "epoch=1", *few).exit_code == 0
    assert "valid_accuracy at epoch 1" in page.read_text(encoding="utf-8")
    for option in (("--metric", "test_accuracy"), ("--at", "epoch=1")):
        refused = bnbench("plot", rates, "accuracy", *option)
        assert (refused.exit_code, "figure 'accuracy' is the same for each of them" in refused.stderr) == (2, True)
    refused = bnbench("plot", rates, "differences", "--metric", "test_acuracy")
    assert (refused.exit_code, "did you mean 'test_accuracy'?" in refused.stderr) == (2, True)


def test_the_legend_counts_the_runs_of_one_learning_rate(rates: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    assert bnbench("plot", rates, "learning-rate", "-o", tmp_path / "lr.svg", "--where", "batch_size=50").exit_code == 0
    drawn = (tmp_path / "lr.svg").read_text(encoding="utf-8")
    assert "batch (n = 3)" in drawn
    assert "(n = 6)" not in drawn


def test_curves_of_each_arm_at_its_own_best_lr(rates: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    done = bnbench("plot", rates, "best-lr", "-o", tmp_path / "best.svg", "--where", "batch_size=50")
    assert done.exit_code == 0, done.stderr
    table = pd.read_csv(io.StringIO(bnbench("compare", rates, "--where", "batch_size=50", "--format", "csv").stdout))
    best = table[table["own_best_lr"].notna()].set_index("network.norm")["lr"]
    drawn = (tmp_path / "best.svg").read_text(encoding="utf-8")
    for arm, lr in best.items():
        assert f"{arm} lr {lr:g}" in drawn
    assert "(n = 3)" in drawn
    refused = bnbench("plot", rates, "best-lr", "--where", "lr=0.1")
    assert (refused.exit_code, "it needs a contrast, and more than one lr" in refused.stderr) == (2, True)
