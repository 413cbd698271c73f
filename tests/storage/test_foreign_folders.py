"""Folders and databases of trackers, made by the real tools; and those that somebody made to do harm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runner.errors import UserError
from runner.storage.foreign import folders, mlflow, table
from runner.storage.foreign.question import Question

ROOT = Path(__file__).parent.parent.parent

Write = Callable[[str, str], Path]

ARMS, SEEDS = ("none", "batch"), (0, 1, 2)


def score(norm: str, seed: int, epoch: int) -> float:
    return 0.5 + seed / 8 + epoch / 16 + (norm == "batch") / 32


EXPECTED = {(norm, seed): score(norm, seed, 2) for norm in ARMS for seed in SEEDS}


def values(path: Path, asked: Question) -> dict[tuple[Any, ...], float]:
    result = table.load(path, asked)
    return {tuple(row[:-1]): row[-1] for row in result.runs[[*result.parameters, asked.metric]].itertuples(index=False)}


def test_folders_of_lightnings_csv_logger(tmp_path: Path) -> None:
    loggers = pytest.importorskip("lightning.pytorch.loggers")
    for norm, seed in EXPECTED:
        logger = loggers.CSVLogger(tmp_path, name="study")
        # A tuple is written as !!python/tuple, which must not stop the reading.
        logger.log_hyperparams({"norm": norm, "betas": (0.9, 0.99), "data": {"seed": seed}})
        for epoch in range(3):
            logger.log_metrics({"train_loss": 1 / (1 + epoch), "epoch": epoch}, step=10 * epoch)
            logger.log_metrics({"val/acc": score(norm, seed, epoch), "epoch": epoch}, step=10 * epoch + 9)
        logger.save()
    asked = Question("norm", (), "none", ("data.seed",), "val/acc")
    assert values(tmp_path, asked) == EXPECTED
    result = table.load(tmp_path, asked)
    assert result.stated
    assert result.stated.at == "last"
    with pytest.raises(UserError, match=r"study/version_0/metrics.csv, line 3 and study/version_1/metrics.csv, line 3"):
        table.load(tmp_path, Question("norm", (), "none", ("betas",), "val/acc"))


HYDRA = """\
import json, pathlib
import hydra

@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config):
    folder = pathlib.Path(hydra.core.hydra_config.HydraConfig.get().runtime.output_dir)
    value = 0.5 + config.seed / 8 + 2 / 16 + (config.norm.kind == "bn") / 32
    (folder / "metrics.json").write_text(json.dumps({"valid": {"accuracy": value}, "note": None}))

main()
"""


def test_a_multirun_folder_of_hydra(tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    (tmp_path / "conf/norm").mkdir(parents=True)
    files = {
        "config": "defaults: [{norm: none}, _self_]\nseed: 0\n",
        "norm/none": "kind: x\n",
        "norm/batch": "kind: bn\n",
    }
    for name, text in files.items():
        (tmp_path / "conf" / f"{name}.yaml").write_text(text)
    (tmp_path / "job.py").write_text(HYDRA)
    seeds = ",".join(map(str, SEEDS))
    command = [sys.executable, "job.py", "-m", "norm=none,batch", f"seed={seeds}", "hydra/job_logging=disabled"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    path = tmp_path / "multirun"
    # An override names the group's choice; config.yaml holds what is in it.
    assert values(path, Question("norm", (), "none", ("seed",), "valid.accuracy")) == EXPECTED
    assert set(values(path, Question("norm.kind", (), "x", ("seed",), "valid.accuracy"))) == {
        (kind, seed) for kind in ("x", "bn") for seed in SEEDS
    }


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same experiment in a database and in a file store."""
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    for name, value in mlflow.SETTINGS.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    folder = tmp_path_factory.mktemp("stores")
    for uri in (f"sqlite:///{folder / 'mlflow.db'}", (folder / "mlruns").as_uri()):
        client = MlflowClient(uri)
        experiment = client.create_experiment("norms", artifact_location=(folder / "artifacts").as_uri())
        for norm, seed in EXPECTED:
            run = client.create_run(experiment, run_name=f"{norm} {seed}", tags={"host": "a"}).info.run_id
            client.log_param(run, "norm", norm)
            client.log_param(run, "seed", seed)
            for epoch in range(3):
                client.log_metric(run, "val/acc", score(norm, seed, epoch), step=epoch)
            client.set_terminated(run, "FAILED" if (norm, seed) == ("batch", 1) else "FINISHED")
        client.create_run(experiment, run_name="a parent, without parameters")
    return {"database": folder / "mlflow.db", "files": folder / "mlruns", "folder of the database": folder}


@pytest.mark.parametrize("kind", ["database", "files", "one experiment", "folder of the database"])
def test_an_mlflow_store(stores: dict[str, Path], kind: str) -> None:
    files = stores["files"]
    experiment = next(path for path in files.iterdir() if path.name.isdecimal() and path.name != "0")
    path = experiment if kind == "one experiment" else stores[kind]
    before = {file: file.read_bytes() for file in files.parent.rglob("*") if file.is_file()}
    asked = Question("norm", (), "none", ("seed", "experiment", "host"), "val/acc")
    result = table.load(path, asked)
    assert {file: file.read_bytes() for file in files.parent.rglob("*") if file.is_file()} == before
    found = result.runs.set_index(["norm", "seed"])["val/acc"].to_dict()
    assert found == EXPECTED
    statuses = result.runs.set_index(["norm", "seed"])["status"]
    assert statuses["batch", 1] == "failed"
    assert (statuses == "ok").sum() == 5
    assert result.stated
    assert "Not counted: 1 row without norm or seed or experiment or host" in result.stated.notes[-1]


def test_a_database_that_is_not_mlflows(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    (tmp_path / "x.db").write_bytes(mlflow.SQLITE + b"\x00 and nonsense")
    with pytest.raises(UserError, match=r"x\.db: MLflow cannot read it: "):
        table.load(tmp_path / "x.db", Question("norm", (), "none", ("seed",), "acc"))


def test_mlflow_missing_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlflow.db").write_bytes(mlflow.SQLITE)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(UserError, match=r"an MLflow store needs MLflow: pip install 'bnbench\[mlflow\]'"):
        table.load(tmp_path, Question("norm", (), "none", ("seed",), "acc"))


# Folders of somebody else

ASKED = Question("norm", (), "none", ("seed",), "acc")


def job(folder: Path, norm: str, seed: int, acc: float) -> Path:
    folder.mkdir(parents=True)
    (folder / "hparams.yaml").write_text(f"norm: {norm}\nseed: {seed}\n")
    (folder / "metrics.csv").write_text(f"acc\n{acc}\n")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A folder of two runs."""
    job(tmp_path / "logs/a", "none", 0, 0.5)
    job(tmp_path / "logs/b", "batch", 0, 0.25)
    return tmp_path / "logs"


def test_no_link_is_followed_out_of_the_folder(two: Path, tmp_path: Path) -> None:
    outside = job(tmp_path / "outside", "secret", 1, 9.0)
    (two / "c").symlink_to(outside, target_is_directory=True)
    assert set(values(two, ASKED)) == {("none", 0), ("batch", 0)}
    stated = table.load(two, ASKED).stated
    assert stated
    assert "Not read: 1 link in the folder (c)." in stated.notes
    (two / "b/metrics.csv").unlink()
    (two / "b/metrics.csv").symlink_to(outside / "metrics.csv")
    with pytest.raises(UserError, match=r"b/metrics.csv: cannot be read: a link"):
        table.load(two, ASKED)
    (two / "b/metrics.csv").unlink()
    (two / "b/metrics.json").symlink_to(outside / "metrics.csv")
    with pytest.raises(UserError, match=r"b/metrics.json: cannot be read: a link"):
        table.load(two, ASKED)


def test_a_yaml_file_makes_no_object(two: Path, tmp_path: Path) -> None:
    evil = f"seed: 0\nnorm: !!python/object/apply:os.mkdir ['{tmp_path / 'made'}']\n"
    (two / "b/hparams.yaml").write_text(evil)
    assert set(values(two, ASKED)) == {("none", 0), (f"[{tmp_path / 'made'}]", 0)}
    assert not (tmp_path / "made").exists()


BOMB = "a: &a {x: 1, y: 1, z: 1, w: 1, v: 1}\n"
BOMB += "".join(
    f"{b}: &{b} {{x: *{a}, y: *{a}, z: *{a}, w: *{a}, v: *{a}}}\n" for a, b in zip("abcdef", "bcdefg", strict=True)
)


TOO_LONG = "a name has more than 1000 characters"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("hparams.yaml", "a: [", "b/hparams.yaml: cannot be read as YAML"),
        ("hparams.yaml", "[" * 2_000, "b/hparams.yaml: cannot be read as YAML"),
        ("hparams.yaml", "a: 1\n" * 300_000, "b/hparams.yaml: is larger than 1 MiB"),
        ("hparams.yaml", BOMB, "b/hparams.yaml: has more than 20000 values"),
        ("hparams.yaml", f"? {'k' * 600}\n: {{{'j' * 400}: 1}}\n", f"hparams.yaml: {TOO_LONG}: kkk"),
        ("metrics.json", json.dumps({"k" * 1_001: 1}), f"b/metrics.json: {TOO_LONG}: kkk"),
        ("metrics.json", json.dumps({"k" * 600: {"j" * 400: 1}}), f"b/metrics.json: {TOO_LONG}: kkk"),
        ("metrics.json", json.dumps(dict.fromkeys(map(str, range(20_001)), 1)), "metrics.json: has more than 20000"),
        ("metrics.json", "[1]", "b/metrics.json: holds no object"),
        ("metrics.json", "{", "b/metrics.json: cannot be read as JSON"),
        ("metrics.json", "[" * 100_000, "b/metrics.json: cannot be read as JSON"),
        ("metrics.csv", "acc,acc\n1,2\n", "b/metrics.csv: more than one column is named 'acc'"),
        ("metrics.csv", "acc\ngood\n", "logs: b/metrics.csv, line 2: acc is 'good': not a number"),
    ],
)
def test_a_damaged_file_is_named(two: Path, name: str, text: str, message: str) -> None:
    if name == "metrics.json":
        (two / "b/metrics.csv").unlink()
    (two / "b" / name).write_text(text)
    with pytest.raises(UserError) as error:
        table.load(two, ASKED)
    assert message in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_folder_without_runs_and_a_sweep_of_bnbench(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no runs here; allowed: a CSV or Parquet file, an MLflow store"):
        table.load(tmp_path, ASKED)
    with pytest.raises(UserError, match="is a sweep of bnbench, which knows its arms"):
        table.load(ROOT / "results/reference/tutorial", ASKED)


def test_what_is_nested_too_deep_is_an_error(two: Path) -> None:
    (two / "a" / "/".join("bcdefghij")).mkdir(parents=True)
    with pytest.raises(UserError, match=r"has folders that are more than 8 folders below"):
        folders.open_source(two)


def test_long_lists_that_differ_stay_different(tmp_path: Path) -> None:
    """A list of 101 numbers, of which the last differs, and a mapping inside a list."""
    for name, values in (("x", [*range(101)]), ("y", [*range(100), 0]), ("z", [{"a": 1}]), ("w", [{"a": 2}])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.csv").write_text("acc\n0.5\n")
        (tmp_path / name / "hparams.yaml").write_text(json.dumps({"norm": values, "seed": 1}))
    arms = {arm for arm, _ in values_of(tmp_path)}
    assert len(arms) == 4
    (tmp_path / "x/hparams.yaml").write_text("norm: " + "{a: " * 9 + "1" + "}" * 9)
    with pytest.raises(UserError, match=r"hparams.yaml: 'norm\.a.*' is nested more than 8 mappings deep"):
        folders.open_source(tmp_path)


def values_of(path: Path) -> list[tuple[str, str]]:
    source = folders.open_source(path)
    return [(cells[0], cells[1]) for _, cells in source.rows(["norm", "seed"])]


def test_too_many_folders(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "MOST_FOLDERS", 2)
    with pytest.raises(UserError, match="has more than 2 folders"):
        table.load(two, ASKED)


def test_a_metric_that_is_named_like_a_parameter_is_told_apart(two: Path) -> None:
    for name in "ab":
        (two / name / "metrics.csv").write_text("acc,seed\n1,77\n")
    assert set(values(two, ASKED)) == {("none", 0), ("batch", 0)}
    assert set(values(two, Question("norm", (), "none", ("seed",), "metrics.seed")).values()) == {77.0}


def test_a_name_of_1000_characters_is_read(two: Path) -> None:
    for folder in "ab":
        (two / folder / "metrics.csv").unlink()
        (two / folder / "metrics.json").write_text(json.dumps({"k" * 499: {"j" * 500: 0.5}}))
    name = f"{'k' * 499}.{'j' * 500}"
    assert set(values(two, Question("norm", (), "none", ("seed",), name)).values()) == {0.5}


def test_short_files_of_aliases_do_not_fill_the_memory(two: Path) -> None:
    long = "x" * 50_000
    lists = "".join(f"{name}: [{', '.join(['*a'] * 400)}]\n" for name in range(2))
    (two / "b/hparams.yaml").write_text(f"norm: batch\nseed: 0\nlong: &a {long}\n{lists}")
    (two / "b/.hydra").mkdir()
    (two / "b/.hydra/overrides.yaml").write_text(f"- &a 'a={long}'\n" + "- *a\n" * 1_000)
    assert peak(two) < 15e6


def test_the_parameters_of_a_run_are_held_once(two: Path) -> None:
    (two / "a/metrics.csv").write_text("acc,epoch\n0.5,0\n")
    with (two / "b/hparams.yaml").open("a") as file:
        file.writelines(f"p{number}: {number}\n" for number in range(1_000))
    (two / "b/metrics.csv").write_text("acc,epoch\n" + "".join(f"0.25,{epoch}\n" for epoch in range(3_000)))
    assert peak(two) < 15e6


def peak(path: Path) -> int:
    """The bytes that reading the two runs needs."""
    tracemalloc.start()
    found = values(path, ASKED)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found == {("none", 0): 0.5, ("batch", 0): 0.25}
    return used
