"""Files of a sweep that each run has one of: its final weights, its predictions. They are written before its row."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner.storage import files, folder


@dataclass(frozen=True)
class RunFiles:
    """One kind of these files: `<name>/<run_id>.<suffix>` in the sweep's folder."""

    name: str
    suffix: str

    def path(self, sweep: Path, run_id: str) -> Path:
        """A run's file."""
        return sweep / self.name / f"{run_id}.{self.suffix}"

    def saved(self, sweep: Path) -> set[str]:
        """The ids of the runs whose file is there."""
        matches = map(self._match, files.names(sweep / self.name, sweep))
        return {match["run_id"] for match in matches if match and match["run_id"]}

    def read(self, sweep: Path, run_id: str) -> bytes:
        """The content of a run's file. Errors: OSError where it cannot be read."""
        return files.read_bytes(self.path(sweep, run_id), sweep)

    def write(self, sweep: Path, run_id: str, content: bytes) -> None:
        """Write a run's file."""
        files.make_folder(sweep / self.name, sweep)
        files.write_atomically(self.path(sweep, run_id), content, sweep)

    def keep_only(self, sweep: Path, run_ids: Collection[str] = ()) -> None:
        """Delete the files of all other runs, and those that a kill left incomplete. Files of others stay."""
        for name in files.names(sweep / self.name, sweep):
            match = self._match(name)
            if match and match["run_id"] not in run_ids:
                files.delete(sweep / self.name / name, sweep)
        files.remove_if_empty(sweep / self.name, sweep)

    def _match(self, name: str) -> re.Match[str] | None:
        run, suffix = "[0-9a-f]{12}", self.suffix
        return re.fullmatch(rf"(?P<run_id>{run})\.{suffix}|\.{run}\.{suffix}\.partial", name)


WEIGHTS, PREDICTIONS = RunFiles(folder.WEIGHTS, "pt"), RunFiles(folder.PREDICTIONS, "bits")

RUN_FILES = (WEIGHTS, PREDICTIONS)


def wanted(*, weights: bool, predictions: bool) -> Sequence[RunFiles]:
    """The kinds of files that a config asks for."""
    return [kind for kind, asked in zip(RUN_FILES, (weights, predictions), strict=True) if asked]


def keep_only(sweep: Path, run_ids: Collection[str] = ()) -> None:
    """Delete the files of all other runs, of every kind."""
    for kind in RUN_FILES:
        kind.keep_only(sweep, run_ids)
