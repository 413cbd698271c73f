"""The checkpoint files of one sweep: written after the rows of their epoch, deleted when their runs have ended."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from runner.storage import checkpoints
from runner.storage.checkpoints import Found
from runner.storage.files import write_atomically
from runner.storage.rows import Checkpoint


class CheckpointFiles:
    """The folder of a sweep's checkpoints. It need not exist, and may be on storage that other machines see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # job's name → its runs that have not ended
        self._unfinished: dict[str, set[str]] = {}

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint whose rows are on the disk, and delete the files that it replaces."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / checkpoints.file_name(checkpoint.run_ids, checkpoint.epoch)
        content = checkpoints.to_bytes(checkpoint)
        if isinstance(path, Path):
            write_atomically(path, content)
        else:
            # An object store shows a file only when it is whole.
            path.write_bytes(content)
        job = _job(path)
        if job not in self._unfinished:
            # The checkpoint of a larger stack, which these runs were part of, is not needed any more.
            self.runs_ended(checkpoint.run_ids)
            self._unfinished[job] = set(checkpoint.run_ids)
        _delete(sorted(self.folder.glob(f"{job}.*{checkpoints.SUFFIX}"))[: -checkpoints.KEPT])

    def runs_ended(self, run_ids: Collection[str]) -> None:
        """Delete the files of the jobs whose last runs have ended."""
        for job, unfinished in list(self._unfinished.items()):
            unfinished -= set(run_ids)
            if not unfinished:
                _delete(self.folder.glob(f"{job}.*"))
                del self._unfinished[job]

    def keep_only(self, needed: Collection[Found], finished: Collection[str] = ()) -> None:
        """Delete all files except the needed ones. `finished` are the ids of the runs that do not continue."""
        paths = {checkpoint.path for checkpoint in needed}
        _delete(path for path in self.folder.glob("*") if path not in paths)
        for checkpoint in needed:
            self._unfinished[_job(checkpoint.path)] = set(checkpoint.run_ids) - set(finished)

    def remove(self) -> None:
        """Delete the files and their folder."""
        if self.folder.exists():
            _delete(self.folder.glob("*"))
            self.folder.rmdir()

    def usable(self, log: Callable[[str], None]) -> list[Found]:
        """The checkpoints that training can continue from, the latest epoch first. The log names each damaged file."""
        found, damaged = checkpoints.find(self.folder)
        damaged += [each.path for each in found if not checkpoints.loads(each)]
        for path in damaged:
            log(f"{path.name}: damaged checkpoint, not used")
        return [each for each in found if each.path not in damaged]


def _job(path: Path) -> str:
    """The job's name in a checkpoint's name."""
    return path.name.partition(".")[0]


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
