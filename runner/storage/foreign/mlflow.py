"""An MLflow store → rows, through MLflow's own client. The client works on a copy, so that it changes nothing."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.errors import UserError, cut, text_of
from runner.storage import files
from runner.storage.foreign.sources import Run, Source, of_runs, open_file

SQLITE = b"SQLite format 3"

DATABASE = "mlflow.db"

EXPERIMENT = "meta.yaml"
"""The file that each experiment and each run of a file store has."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ALLOW_FILE_STORE": "true",  # Without it, MLflow 3 does not even read one.
}

PAGE = 1_000

MOST_COPIED = 200_000
"""No file store with more files is copied."""


def is_store(folder: Path) -> bool:
    """Whether a folder is a file store of MLflow, one experiment of it, or holds its database."""
    names = files.names(folder)
    return DATABASE in names or EXPERIMENT in names or any(EXPERIMENT in _names_in(folder / name) for name in names)


def _names_in(path: Path) -> list[str]:
    return files.names(path) if path.is_dir() and not path.is_symlink() else []


def source(path: Path) -> Source:
    """Every run of every experiment that is not deleted: parameters, the last value of each metric, and tags.

    The columns `Name`, `State` and `experiment` are MLflow's own.
    Errors: UserError where MLflow is missing, or cannot read the store.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)  # What the user has set stays.
    try:
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise UserError(f"{path}: an MLflow store needs MLflow: pip install 'bnbench[mlflow]'") from None
    with tempfile.TemporaryDirectory() as scratch:
        uri = _copied(path, Path(scratch))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                runs = list(_runs(MlflowClient(uri)))
        except Exception as error:
            raise UserError(f"{path}: MLflow cannot read it: {cut(' '.join(text_of(error).split()), 200)}") from None
    if not runs:
        raise UserError(f"{path}: this MLflow store holds no run")
    return of_runs(path, runs)


def _runs(client: Any) -> Iterator[Run]:
    for experiment in client.search_experiments():
        token = None
        while True:
            page = client.search_runs([experiment.experiment_id], max_results=PAGE, page_token=token)
            for run in page:
                yield _run(run, experiment.name)
            if not (token := page.token):
                break


def _run(run: Any, experiment: str) -> Run:
    tags = {name: text for name, text in run.data.tags.items() if not name.startswith("mlflow.")}
    own = {"Name": run.info.run_name or "", "State": run.info.status, "experiment": experiment}
    values = [repr(value) for value in run.data.metrics.values()]
    return Run({**tags, **run.data.params, **own}, tuple(run.data.metrics), [(f"run {run.info.run_id}", values)])


def _copied(path: Path, scratch: Path) -> str:
    """Copy a store. The URI of the copy."""
    database = path / DATABASE if path.is_dir() and files.exists(path / DATABASE) else path
    if not database.is_dir():
        _copy(database, scratch / DATABASE, None)
        return f"sqlite:///{scratch / DATABASE}"
    top = path if EXPERIMENT not in files.names(path) else path.parent
    wanted = [path.relative_to(top).parts[0]] if top != path else files.names(top)
    count = 0
    for file in _files(top, wanted):
        target = scratch / file.relative_to(top)
        target.parent.mkdir(parents=True, exist_ok=True)
        _copy(file, target, top)
        if (count := count + 1) > MOST_COPIED:
            raise UserError(f"{path}: has more than {MOST_COPIED} files")
    return scratch.as_uri()


def _files(top: Path, experiments: list[str]) -> Iterator[Path]:
    """The files of a file store that tell of runs: no artifacts, and nothing behind a link."""
    for experiment in experiments:
        if EXPERIMENT in _names_in(top / experiment):
            yield top / experiment / EXPERIMENT
            for run in _names_in(top / experiment):
                if EXPERIMENT in _names_in(top / experiment / run):
                    yield top / experiment / run / EXPERIMENT
                    for kind in ("params", "metrics", "tags"):
                        yield from _below(top / experiment / run / kind)


def _below(folder: Path) -> Iterator[Path]:
    """A metric's name may hold slashes, so it lies in folders of its own."""
    for name in _names_in(folder):
        path = folder / name
        if files.is_regular(path):
            yield path
        else:
            yield from _below(path)


def _copy(path: Path, target: Path, inside: Path | None) -> None:
    with os.fdopen(open_file(path, inside), "rb") as file, target.open("wb") as copy:
        while content := file.read(2**20):
            copy.write(content)
