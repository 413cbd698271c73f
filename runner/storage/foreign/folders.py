"""Folders and databases of trackers → rows: Lightning's CSVLogger, Hydra, MLflow."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from runner.errors import UserError, cut, line_of, text_of
from runner.storage import files
from runner.storage.foreign import mlflow
from runner.storage.foreign.sources import Run, Source, csv_source, of_runs, open_file, parquet_source

METRICS_CSV, METRICS_JSON = "metrics.csv", "metrics.json"

HPARAMS, HYDRA = "hparams.yaml", ".hydra"

MOST_FOLDERS, MOST_DEPTH, MOST_NODES, MOST_TEXT, MOST_NAME, MOST_ITEMS = 100_000, 8, 20_000, 2**20, 1_000, 100


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

    Its parameters are those of hparams.yaml (Lightning) and of .hydra/ (Hydra), beside it or in a folder above it.
    Errors: UserError where there is no run.
    """
    links: list[Path] = []
    runs = [_run(top, folder, parameters) for folder, parameters in _runs(top, links)]
    if not any(run.rows for run in runs):
        raise UserError(
            f"{top}: no runs here; allowed: a CSV or Parquet file, an MLflow store, or a folder with {METRICS_CSV} or "
            f"{METRICS_JSON} for each run (Lightning's CSVLogger, Hydra)"
        )
    number = f"{len(links)} link{'s' if len(links) > 1 else ''}"
    notes = [f"Not read: {number} in the folder ({links[0]}{', …' if links[1:] else ''})."] if links else []
    return replace(of_runs(top, runs), notes=tuple(notes))


def _runs(top: Path, links: list[Path]) -> Iterator[tuple[Path, dict[str, str]]]:
    """The folders of runs below a folder, with their parameters. Adds to `links` what is a link, and is not read."""
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
        links += [path.relative_to(top) for path in below if path.is_symlink()]
        deeper = [path for path in below if not path.is_symlink() and path.is_dir()]
        if deeper and len(folder.relative_to(top).parts) >= MOST_DEPTH:
            raise UserError(f"{folder}: has folders that are more than {MOST_DEPTH} folders below {top}")
        waiting += [(path, parameters) for path in deeper]


def _run(top: Path, folder: Path, parameters: dict[str, str]) -> Run:
    """The run of a folder. A log has many rows, so the parameters are not repeated in each."""
    shown = folder.relative_to(top)
    if files.exists(folder / METRICS_CSV):
        source, place = csv_source(folder / METRICS_CSV, top), shown / METRICS_CSV
        source.check(source.columns)
        rows = [(f"{place}, {source.at(line)}", cells) for line, cells in source.rows(source.columns)]
        return Run(parameters, source.columns, rows)
    values = _json(folder / METRICS_JSON, top)
    return Run(parameters, tuple(values), [(str(shown / METRICS_JSON), tuple(values.values()))])


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
    return _leaves(values, path)


def _leaves(values: dict[str, Any], path: Path) -> dict[str, str]:
    """The texts of a JSON object under their dotted names."""
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("", values)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            if len(found) + len(waiting) + len(value) > MOST_NODES:
                raise _too_many(path)
            waiting += [(_joined(name, key, path), below) for key, below in reversed(value.items())]
        elif value is not None:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def _joined(name: str, key: str, path: Path) -> str:
    """A dotted name. Errors: UserError where it is too long: a short file can have thousands, which fill the memory."""
    prefix = f"{name}." if name else ""
    if len(prefix) + len(key) > MOST_NAME:
        raise UserError(f"{path}: a name has more than {MOST_NAME} characters: {line_of(prefix + key[:MOST_NAME])}")
    return prefix + key


def _too_many(path: Path) -> UserError:
    return UserError(f"{path}: has more than {MOST_NODES} values")


def _hydra(folder: Path, top: Path) -> dict[str, str]:
    """The parameters of a Hydra job: those of config.yaml, and the overrides as they were written (`model=resnet`)."""
    names = files.names(folder, top)
    found = _flat(_compose(folder / "config.yaml", top), folder / "config.yaml") if "config.yaml" in names else {}
    if "overrides.yaml" in names:
        path = folder / "overrides.yaml"
        node = _compose(path, top)
        items = node.value if isinstance(node, yaml.SequenceNode) else []
        if len(items) > MOST_NODES:
            raise _too_many(path)
        # One at a time: thousands of aliases of one long text are a short file.
        pairs = (item.value.partition("=") for item in items if isinstance(item, yaml.ScalarNode))
        found |= {_joined("", name.lstrip("+~"), path): value for name, equals, value in pairs if equals}
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
        if isinstance(node, yaml.MappingNode):
            if depth >= MOST_DEPTH:
                raise UserError(f"{path}: '{cut(name)}' is nested more than {MOST_DEPTH} mappings deep")
            keys = [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
            waiting += [(_joined(name, key, path), value, depth + 1) for key, value in keys]
        elif isinstance(node, yaml.ScalarNode):
            null = node.tag == "tag:yaml.org,2002:null"
            found[name] = "" if null else node.value
        elif isinstance(node, yaml.SequenceNode):
            found[name] = _list_text(node)
    raise _too_many(path)


def _list_text(node: yaml.SequenceNode) -> str:
    """A list as text: a short list of scalars in full, another one by its first items and a digest.

    (PyYAML writes aliases as aliases, so a small file has a small text.)
    """
    items = [item.value for item in node.value[:MOST_ITEMS] if isinstance(item, yaml.ScalarNode)]
    if len(items) == len(node.value) and sum(map(len, items)) <= MOST_NAME:
        return f"[{', '.join(items)}]"
    digest = hashlib.sha256(yaml.serialize(node).encode()).hexdigest()[:8]
    return f"[{', '.join(cut(item) for item in items)}, …: {len(node.value)} items, {digest}]"
