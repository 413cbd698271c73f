"""Where a sweep's checkpoints are: a folder on a disk, or a storage that several machines see."""

import errno
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, cast

from runner.errors import UserError
from runner.storage import files


class Place(Protocol):
    """The files of one folder, by their names. Errors: OSError that names the file."""

    def make(self) -> None:
        """Make the folder, where it is missing."""

    def names(self) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None:
        """Write a file, and the folder where it is missing. A reader sees the old file or the new one."""

    def write_new(self, name: str, content: bytes) -> None:
        """Write a file that nobody reads yet. The folder must be there."""

    def rename(self, name: str, to: str) -> None:
        """Give a file another name. Errors: FileNotFoundError where it is not there."""

    def delete(self, name: str) -> None: ...

    def remove(self) -> None:
        """Remove the folder, if it is there and empty."""


def folder_at(place: str, sweep_folder: Path) -> Path:
    """A sweep's folder in a storage that several machines see. `place` is a path, or a URL such as s3://bucket/name.

    Errors: UserError where the URL cannot be used, or where the package that reads it is not installed.
    """
    # The digest tells two results folders apart that share one storage.
    owner = hashlib.sha256(str(sweep_folder.resolve()).encode()).hexdigest()[:8]
    name = f"{sweep_folder.name}-{owner}"
    if "://" not in place:
        return Path(place).resolve() / name
    try:
        from upath import UPath

        folder = UPath(place) / name
        # This imports the package of this kind of storage, and connects to it where that is necessary.
        _ = folder.fs
        return cast(Path, folder)
    except ImportError as error:
        # fsspec says which package to install. Its error has no name.
        missing = f" needs {error.name}: pip install 'bnbench[ray]'" if error.name else f": {error}"
        raise UserError(f"checkpoint_dir {place}{missing}") from None
    except Exception as error:
        # Each package has its own errors.
        raise UserError(f"checkpoint_dir {place}: {type(error).__name__}: {error}") from None


def place_of(folder: Path) -> Place:
    """The place that a checkpoint folder is. A folder that is no `Path` is one of `folder_at`'s URLs."""
    return _Disk(folder) if isinstance(folder, Path) else _Storage(folder)


class _Disk:
    """A folder on a disk. It may not be a link; the folder that it is in may."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        files.make_folder(self.folder, self.folder.parent)

    def names(self) -> list[str]:
        return files.names(self.folder, self.folder.parent)

    def read(self, name: str) -> bytes:
        return files.read_bytes(self.folder / name, self.folder.parent)

    def write(self, name: str, content: bytes) -> None:
        self.make()
        files.write_atomically(self.folder / name, content, self.folder.parent)

    def write_new(self, name: str, content: bytes) -> None:
        files.write_new(self.folder / name, content, self.folder.parent)

    def rename(self, name: str, to: str) -> None:
        files.rename(self.folder / name, to, self.folder.parent)

    def delete(self, name: str) -> None:
        files.delete(self.folder / name, self.folder.parent)

    def remove(self) -> None:
        files.remove_if_empty(self.folder, self.folder.parent)


class _Storage:
    """A folder of an object store, or of another storage that fsspec reads. It has no links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self) -> None:
        with _errors_of(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def names(self) -> list[str]:
        with _errors_of(self.folder):
            return sorted(path.name for path in self.folder.glob("*"))

    def read(self, name: str) -> bytes:
        with _errors_of(self.folder / name):
            return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        self.make()
        self.write_new(name, content)

    def write_new(self, name: str, content: bytes) -> None:
        # A storage shows a file only when it is whole.
        with _errors_of(self.folder / name):
            (self.folder / name).write_bytes(content)

    def rename(self, name: str, to: str) -> None:
        with _errors_of(self.folder / name):
            (self.folder / name).rename(self.folder / to)

    def delete(self, name: str) -> None:
        with _errors_of(self.folder / name):
            (self.folder / name).unlink(missing_ok=True)

    def remove(self) -> None:
        with _errors_of(self.folder):
            if self.folder.exists() and not any(self.folder.iterdir()):
                self.folder.rmdir()


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    """Let every error of the package that reads the storage be an OSError that names the file."""
    try:
        # The package remembers which files are there, but other machines write files, too.
        path.fs.invalidate_cache()  # type: ignore[attr-defined]
        yield
    except Exception as error:
        number = errno.ENOENT if isinstance(error, FileNotFoundError) else errno.EIO
        raise OSError(number, f"{type(error).__name__}: {error}", str(path)) from None
