"""The checkpoint files of one sweep: written after the rows of their epoch, deleted when their runs have ended."""

from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from runner.errors import UserError
from runner.storage import checkpoints
from runner.storage.checkpoint_places import place_of
from runner.storage.checkpoints import Found
from runner.storage.rows import Checkpoint


class CheckpointFiles:
    """The folder of a sweep's checkpoints. It need not exist, and may be on storage that other machines see.

    Only files that have the names of checkpoints are read or deleted. Other files stay.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._place = place_of(folder)
        # job's name → its runs that have not ended
        self._unfinished: dict[str, set[str]] = {}

    def make_folder(self) -> None:
        """Make the folder for nodes that write there. Errors: OSError."""
        self._place.make()

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint whose rows are on the disk, and delete the files that it replaces.

        A node has written its file already; any other is written now. Errors: UserError where this machine does not see
        the node's file.
        """
        name = checkpoints.file_name(checkpoint.run_ids, checkpoint.epoch)
        if checkpoint.written_as:
            try:
                self._place.rename(checkpoint.written_as, name)
            except FileNotFoundError:
                path = self.folder / checkpoint.written_as
                raise UserError(f"checkpoint_dir is not shared: a node has written {path}, which is not here") from None
        else:
            self._place.write(name, checkpoints.to_bytes(checkpoint))
        job = _job(name)
        if job not in self._unfinished:
            # The checkpoint of a larger stack, which these runs were part of, is not needed any more.
            self.runs_ended(checkpoint.run_ids)
            self._unfinished[job] = set(checkpoint.run_ids)
        self._delete(self._of(job)[: -checkpoints.KEPT])

    def runs_ended(self, run_ids: Collection[str]) -> None:
        """Delete the files of the jobs whose last runs have ended."""
        for job, unfinished in list(self._unfinished.items()):
            unfinished -= set(run_ids)
            if not unfinished:
                self._delete(self._of(job))
                del self._unfinished[job]

    def keep_only(self, needed: Collection[Found], finished: Collection[str] = ()) -> None:
        """Delete all files except the needed ones. `finished` are the ids of the runs that do not continue."""
        kept = {checkpoint.path.name for checkpoint in needed}
        self._delete(name for name in self._place.names() if checkpoints.is_own(name) and name not in kept)
        for checkpoint in needed:
            self._unfinished[_job(checkpoint.path.name)] = set(checkpoint.run_ids) - set(finished)

    def remove(self) -> None:
        """Delete the files and their folder."""
        self.keep_only([])
        self._place.remove()

    def usable(self, log: Callable[[str], None]) -> list[Found]:
        """The checkpoints that training can continue from, the latest epoch first. The log names each damaged file."""
        found, damaged = checkpoints.find(self.folder)
        damaged += [each.path for each in found if not checkpoints.loads(each)]
        for path in damaged:
            log(f"{path.name}: damaged checkpoint, not used")
        return [each for each in found if each.path not in damaged]

    def _of(self, job: str) -> list[str]:
        """The names of a job's files, by epoch."""
        return [name for name in self._place.names() if checkpoints.is_whole(name) and _job(name) == job]

    def _delete(self, names: Iterable[str]) -> None:
        for name in names:
            self._place.delete(name)


def _job(name: str) -> str:
    """The job's name in a checkpoint's name."""
    return name.partition(".")[0]
