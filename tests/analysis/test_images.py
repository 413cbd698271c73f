"""Intervals for new seeds and new test images. Oracles: U-statistics, planted effects, the saved files themselves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from runner.analysis.stats.crossed import crossed_interval
from runner.analysis.stats.intervals import paired_interval
from runner.storage.predictions import pack, unpack
from tests.conftest import Bnbench

Table = NDArray[np.float64]
Write = Callable[[str, str], Path]

CONFIG = """
contrast: {axis: network.norm, baseline: none}
fixed: {network: mlp, network.hidden: [8], dataset: digits, device: cpu, epochs: 2, batch_size: 50, train_samples: 200,
  optimizer: sgd, lr: 0.1}
grid: {network.norm: [none, batch], seed: {range: 3}}
save_predictions: true
"""


def moments(values: Table) -> list[float]:
    """The mean products of two values: of the same seed and image, of the same image, of the same seed, of neither."""
    S, I = values.shape  # noqa: E741
    products: list[list[float]] = [[], [], [], []]
    for s, t in np.ndindex(S, S):
        for i, j in np.ndindex(I, I):
            products[(s != t) + 2 * (i != j)].append(values[s, i] * values[t, j])
    return [float(np.mean(each)) for each in products]


def test_the_variance_is_that_of_u_statistics() -> None:
    """Gallas et al. 2009: Var = Σ c_k M_k − M_4, where c_k is the share of such pairs among all pairs of values."""
    random = np.random.default_rng(0)
    values = random.integers(-1, 2, (4, 6)) + random.normal(0, 0.5, (4, 1)) + random.normal(0, 2, 6)
    S, I = values.shape  # noqa: E741
    shares = [1 / (S * I), (S - 1) / (S * I), (I - 1) / (S * I), (S - 1) * (I - 1) / (S * I)]
    m = moments(values)
    expected = sum(share * moment for share, moment in zip(shares, m, strict=True)) - m[3]
    found = crossed_interval(values)
    assert found.estimate == pytest.approx(values.mean())
    assert found.high is not None
    # Satterthwaite: (Σ terms)² / Σ terms²/df, from mean squares that are written out here.
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns + values.mean()
    seed, image, both = I * rows.var(ddof=1), S * columns.var(ddof=1), (rest**2).sum() / ((S - 1) * (I - 1))
    assert (seed + image - both) / (S * I) == pytest.approx(expected)
    squares = seed**2 / (S - 1) + image**2 / (I - 1) + both**2 / ((S - 1) * (I - 1))
    half = stats.t.ppf(0.975, (seed + image - both) ** 2 / squares) * np.sqrt(expected)
    assert found.high - found.estimate == pytest.approx(half)


def covers(random: np.random.Generator, sds: tuple[float, float, float], shape: tuple[int, int]) -> Table:
    """Whether the crossed interval, and that of the seeds alone, cover the planted mean .3."""
    sizes = (shape[0], 1), (1, shape[1]), shape
    seed, image, both = (random.normal(0, sd, size) for sd, size in zip(sds, sizes, strict=True))
    values = 0.3 + seed + image + both
    intervals = crossed_interval(values), paired_interval(values.mean(axis=1))
    return np.array([(each.low or 0) <= 0.3 <= (each.high or 0) for each in intervals], dtype=float)


def test_planted_image_effects_are_covered_where_seeds_alone_are_not_enough() -> None:
    """Of 600 intervals at 95%, 94% to 96% are within one SD."""
    random = np.random.default_rng(1)
    crossed, seeds = np.mean([covers(random, (0.05, 1.0, 0.5), (8, 200)) for _ in range(600)], axis=0)
    assert 0.93 <= crossed <= 0.975
    assert seeds < 0.6
    # Where images add nothing, the interval is that of the seeds.
    crossed, seeds = np.mean([covers(random, (0.2, 0.0, 1.0), (8, 200)) for _ in range(600)], axis=0)
    assert 0.93 <= seeds <= crossed <= 0.985


def test_the_interval_is_never_narrower_than_that_of_the_seeds() -> None:
    """For three seeds, Satterthwaite's degrees of freedom alone would cover 92%."""
    random = np.random.default_rng(2)
    crossed, seeds = np.mean([covers(random, (0.2, 0.7, 1.0), (3, 200)) for _ in range(600)], axis=0)
    assert seeds <= crossed
    assert 0.93 <= crossed <= 0.97


def test_the_ends_of_the_formula() -> None:
    same = crossed_interval(np.full((3, 5), 0.25))
    assert (same.low, same.estimate, same.high) == (0.25, 0.25, 0.25)
    # Each image's error is cancelled by another seed's: MS_image is 0, and the interval is the paired one.
    values = np.array([[1.0, 0.0, 0.5], [0.0, 1.0, 0.5]]).repeat(2, axis=0) + np.array([[0.1], [0.2], [0.4], [0.3]])
    assert crossed_interval(values) == paired_interval(values.mean(axis=1))
    for wrong in (np.zeros((1, 5)), np.zeros(5), np.array([[1.0, np.nan], [0.0, 1.0]])):
        with pytest.raises(ValueError, match="needs finite values"):
            crossed_interval(wrong)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 10_000])
def test_a_file_of_predictions_gives_them_back(count: int) -> None:
    correct = np.random.default_rng(count).random(count) < 0.9
    content = pack(correct)
    assert len(content) == 4 + -(-count // 8)
    assert unpack(content).tolist() == correct.tolist()
    for wrong in (content[:-1], content + b"\0", b""):
        with pytest.raises(ValueError, match="are no file"):
            unpack(wrong)


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "runs.csv", dtype={"run_id": str}).set_index("run_id")


def bits_of(folder: Path, run_id: str) -> NDArray[np.uint8]:
    """A run's predictions, read without bnbench."""
    content = np.fromfile(folder / "predictions" / f"{run_id}.bits", dtype=np.uint8)
    return np.unpackbits(content[4:])[: int(content[:4].view("<u4")[0])]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from click.testing import CliRunner

    from runner.interfaces.cli.main import main

    out = tmp_path_factory.mktemp("images")
    (out / "s.yaml").write_text(CONFIG)
    arguments = ["run", str(out / "s.yaml"), "--out", str(out), "--executor", "inline", "-q"]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    return out / "s"


def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "s"))


def test_a_comparison_over_seeds_and_images_end_to_end(bnbench: Bnbench, trained: Path) -> None:
    runs = table_of(trained)
    bits = {run_id: bits_of(trained, run_id).astype(float) for run_id in runs.index}
    for run_id, own in bits.items():
        assert own.mean() == pytest.approx(runs.loc[run_id, "test_accuracy"])
    ids = runs.reset_index().pivot(index="seed", columns="network.norm", values="run_id")
    differences = np.array([bits[row["batch"]] - bits[row["none"]] for _, row in ids.iterrows()])
    expected = crossed_interval(differences)
    done = bnbench("compare", trained, "--over", "seeds,images", "--format", "json")
    (row,) = [each for each in json.loads(done.stdout) if each["network.norm"] == "batch"]
    names = ("difference_over_images", "difference_over_images_low", "difference_over_images_high")
    assert [row[name] for name in names] == pytest.approx([expected.estimate, expected.low, expected.high])
    assert row["metric"] == "test_accuracy"
    assert row["difference"] == pytest.approx(expected.estimate)
    text = " ".join(bnbench("compare", trained, "--over", "seeds,images").stdout.split())
    assert "over seeds and images: the interval for new seeds and new test images" in text
    assert "tested on the same images" not in text
    assert "over seeds and images" not in bnbench("compare", trained).stdout


def test_a_stack_keeps_the_predictions_of_each_run(bnbench: Bnbench, trained: Path, tmp_path: Path) -> None:
    config = trained.parent / "s.yaml"
    done = bnbench("run", config, "--out", tmp_path, "--executor", "inline", "-q", "--stack", "on")
    assert done.exit_code == 0, done.output
    runs = table_of(tmp_path / "s")
    assert set(runs["trained_as"]) == {"stack of 3"}
    for run_id, row in runs.iterrows():
        ours, alone = bits_of(tmp_path / "s", str(run_id)), bits_of(trained, str(run_id))
        assert ours.mean() == pytest.approx(row["test_accuracy"])
        assert (ours != alone).mean() < 0.02  # rounding decides a few of 297 images


def test_runs_that_validate_on_the_test_set(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("s.yaml", CONFIG.replace("epochs: 2", "epochs: 1, validate_on: test"))
    assert bnbench("run", config, "--out", tmp_path, "--executor", "inline", "-q").exit_code == 0
    done = bnbench("compare", tmp_path / "s", "--over", "seeds,images", "--format", "json")
    assert json.loads(done.stdout)[0]["metric"] == "valid_accuracy"
    assert json.loads(done.stdout)[1]["difference_over_images"] is not None
    wrong = bnbench("compare", tmp_path / "s", "--over", "seeds,images", "--at", "best")
    assert wrong.stderr == (
        "--over seeds,images is about the test set at the end: use --metric valid_accuracy --at last\n"
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "predictions").iterdir()}


def test_after_a_kill_a_resume_gives_the_same_files(bnbench: Bnbench, trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    lines = (folder / "runs.csv").read_text().splitlines(keepends=True)
    (folder / "runs.csv").write_text("".join(lines[:-2]))
    last = lines[-1].rsplit(",", 1)[1].strip()
    # The kill came after the file of a run, and before its row. Another file was being written.
    (folder / "predictions" / f"{last}.bits").write_bytes(b"of another time")
    (folder / "predictions" / f".{last}.bits.partial").write_bytes(b"")
    (folder / "predictions" / "mine.txt").write_text("stays")
    done = bnbench("resume", folder, "--executor", "inline", "-q")
    assert done.exit_code == 0, done.output
    assert contents(folder) == contents(trained) | {"mine.txt": b"stays"}


def test_a_file_that_is_missing_or_damaged_is_one_error(bnbench: Bnbench, trained: Path, tmp_path: Path) -> None:
    folder = copied(trained, tmp_path)
    first, second, *_ = sorted((folder / "predictions").glob("*.bits"))
    compare = "compare", folder, "--over", "seeds,images"
    content = bytearray(first.read_bytes())
    content[-2] ^= 1
    first.write_bytes(content)
    assert f"{first}: damaged, or of another run: runs.csv has another accuracy" in bnbench(*compare).stderr
    first.write_bytes(content[:-1])
    assert f"{first}: damaged: " in bnbench(*compare).stderr
    first.unlink()
    first.symlink_to(second)
    done = bnbench(*compare)
    assert done.exit_code == 2
    assert "a link" in done.stderr
    first.unlink()
    done = bnbench(*compare)
    assert done.exit_code == 2
    message, command = done.stderr.splitlines()
    assert message == (
        f"{folder}: 1 of 6 runs have no predictions; --over seeds,images needs save_predictions: true in the config;"
        " this trains them again:"
    )
    again = bnbench(*command.split()[1:], "--executor", "inline", "-q")
    assert again.exit_code == 0, again.output
    assert contents(folder) == contents(trained)
    assert bnbench(*compare).exit_code == 0
    # The sweep is started again without them.
    off = ("--executor", "inline", "-q", "--fresh", "--set", "save_predictions=false", "--set", "grid.seed=[0]")
    assert bnbench("run", folder / "config.yaml", "--out", tmp_path, *off).exit_code == 0
    assert not (folder / "predictions").exists()
