"""Folders and databases of trackers → rows: Lightning's CSVLogger, Hydra, MLflow."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runner.errors import UserError, cut, text_of
from runner.storage import files
from runner.storage.foreign import mlflow
from runner.storage.foreign.sources import Source, csv_source, of_records, open_file, parquet_source, with_metrics

METRICS_CSV, METRICS_JSON = "metrics.csv", "metrics.json"

HPARAMS, HYDRA = "hparams.yaml", ".hydra"

MOST_FOLDERS, MOST_DEPTH, MOST_NODES, MOST_TEXT = 100_000, 8, 20_000, 2**20


def open_source(path: Path) -> Source:
    """The rows of a file or folder. Its content says what it is.

    Errors: UserError where it is nothing that can be read.
    """
    if path.is_dir():
        if files.exists(path / METRICS_CSV) and files.exists(path / "runs.csv"):
            raise UserError(f"{path}: is a sweep of bnbench, which knows its arms: leave out --axis, --pair and so on")
        return mlflow.source(path) if mlflow.is_store(path) else _folder(path)
    start = _start(path)
    if start.startswith(mlflow.SQLITE):
        return mlflow.source(path)
    return parquet_source(path) if start.startswith(b"PAR1") else csv_source(path)


def _start(path: Path) -> bytes:
    with os.fdopen(open_file(path), "rb") as file:
        return file.read(16)


def _folder(top: Path) -> Source:
    """Each folder with a metrics.csv or metrics.json is a run.

    Its parameters are those of hparams.yaml beside it (Lightning), and those of .hydra/ beside it or in a folder above
    it (Hydra).
    Errors: UserError where there is no run.
    """
    records = [record for folder, parameters in _runs(top) for record in _records(top, folder, parameters)]
    if not records:
        raise UserError(
            f"{top}: no runs here; allowed: a CSV or Parquet file, an MLflow store, or a folder with {METRICS_CSV} or "
            f"{METRICS_JSON} for each run (Lightning's CSVLogger, Hydra)"
        )
    return of_records(top, records)


def _runs(top: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folders of runs below a folder, with their parameters."""
    waiting: list[tuple[Path, dict[str, str]]] = [(top, {})]
    seen = 0
    while waiting:
        folder, parameters = waiting.pop()
        seen += 1
        if seen > MOST_FOLDERS:
            raise UserError(f"{top}: has more than {MOST_FOLDERS} folders")
        names = files.names(folder, top)
        if HYDRA in names:
            parameters = parameters | _hydra(folder / HYDRA, top)
        if HPARAMS in names:
            parameters = parameters | _flat(_compose(folder / HPARAMS, top), folder / HPARAMS)
        if METRICS_CSV in names or METRICS_JSON in names:
            yield folder, parameters
        below = [folder / name for name in reversed(names) if name != HYDRA]
        # `is_dir` follows links, so they are asked for first.
        deeper = [path for path in below if not path.is_symlink() and path.is_dir()]
        if len(folder.relative_to(top).parts) < MOST_DEPTH:
            waiting += [(path, parameters) for path in deeper]


def _records(top: Path, folder: Path, parameters: dict[str, str]) -> Iterator[tuple[str, dict[str, str]]]:
    """The rows of a run."""
    shown = folder.relative_to(top)
    if files.exists(folder / METRICS_CSV):
        source = csv_source(folder / METRICS_CSV, top)
        source.check(source.columns)
        for place, cells in source.rows(source.columns):
            metrics = dict(zip(source.columns, cells, strict=True))
            yield f"{shown / METRICS_CSV}, {source.at(place)}", with_metrics(parameters, metrics)
    else:
        yield str(shown / METRICS_JSON), with_metrics(parameters, _json(folder / METRICS_JSON, top))


def _read_text(path: Path, top: Path) -> str:
    """A small text file, which is no link. Errors: UserError."""
    with os.fdopen(open_file(path, top), "rb") as file:
        content = file.read(MOST_TEXT + 1)
    if len(content) > MOST_TEXT:
        raise UserError(f"{path}: is larger than {MOST_TEXT // 2**20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: not UTF-8") from None


def _json(path: Path, top: Path) -> dict[str, str]:
    try:
        values = json.loads(_read_text(path, top), parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read as JSON: {cut(text_of(error), 120)}") from None
    if not isinstance(values, dict):
        raise UserError(f'{path}: holds no object; allowed: names and numbers, such as {{"accuracy": 0.9}}')
    return dict(_leaves("", values))


def _leaves(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """The texts of a JSON object under their dotted names."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from _leaves(f"{name}.{key}" if name else key, below)
    elif value is not None:
        yield name, value if isinstance(value, str) else json.dumps(value)


def _hydra(folder: Path, top: Path) -> dict[str, str]:
    """The parameters of a Hydra job: those of config.yaml, and the overrides as they were written (`model=resnet`)."""
    names = files.names(folder, top)
    found = _flat(_compose(folder / "config.yaml", top), folder / "config.yaml") if "config.yaml" in names else {}
    if "overrides.yaml" in names:
        node = _compose(folder / "overrides.yaml", top)
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        pairs = [item.value.partition("=") for item in items if isinstance(item, yaml.ScalarNode)]
        found |= {name.lstrip("+~"): value for name, equals, value in pairs if equals}
    return found


def _compose(path: Path, top: Path) -> yaml.Node | None:
    """A YAML file as PyYAML's nodes, which are texts: no tag makes an object. Errors: UserError."""
    try:
        return yaml.compose(_read_text(path, top), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        reason = " ".join(text_of(error).split())
        raise UserError(f"{path}: cannot be read as YAML: {cut(reason, 120)}") from None


def _flat(node: Any, path: Path) -> dict[str, str]:
    """The scalars of a document under their dotted names: `{optimizer: {lr: 0.1}}` gives "optimizer.lr"."""
    found: dict[str, str] = {}
    waiting = [("", node, 0)]
    for _ in range(MOST_NODES):
        if not waiting:
            return found
        name, node, depth = waiting.pop()
        if isinstance(node, yaml.MappingNode) and depth < MOST_DEPTH:
            prefix = f"{name}." if name else ""
            waiting += [
                (prefix + key.value, value, depth + 1) for key, value in node.value if isinstance(key, yaml.ScalarNode)
            ]
        elif isinstance(node, yaml.ScalarNode):
            null = node.tag == "tag:yaml.org,2002:null"
            found[name] = "" if null else node.value
        elif isinstance(node, yaml.SequenceNode):
            items = [item.value if isinstance(item, yaml.ScalarNode) else "…" for item in node.value[:MOST_DEPTH]]
            found[name] = f"[{', '.join(items)}]"
    raise UserError(f"{path}: has more than {MOST_NODES} values")
