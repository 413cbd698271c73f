"""The files of a results folder. All that bnbench opens, replaces or deletes there goes through this module.

A results folder may come from somebody else. So a file is opened by its name in its folder's descriptor, never through
a link, and only if it is a regular file: a pipe or a device in its place is an error, and nothing waits for it. The
results folder itself may be a link. `inside` names it where a file lies in a folder below it. Without `inside`, it is
the file's own folder.

A kill leaves each file whole: it is written aside and renamed, or lines are appended and flushed. Errors are OSErrors
that name the file, where a function does not say otherwise.
"""

import errno
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from runner.errors import UserError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY
# O_NONBLOCK: opening a pipe does not wait for its other end. It changes nothing for a regular file.
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK

_REASONS = {
    errno.ELOOP: "a link, and bnbench follows no link inside a results folder",
    errno.ENOTDIR: "a link or a file, and not a folder",
    errno.ENXIO: "not a regular file",
}
"""What an error number means here."""


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let the OSErrors of the block name the file. (The original error, such as "no space left", may not.)"""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, _REASONS.get(error.errno or 0, error.strerror), str(path)) from None


def _open_folder(folder: Path, inside: Path | None) -> int:
    base = inside or folder
    with _naming(folder):
        descriptor = os.open(base, _FOLDER)
        for name in folder.relative_to(base).parts:
            try:
                below = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=descriptor)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


@contextmanager
def _parent(path: Path, inside: Path | None) -> Iterator[int]:
    """The descriptor of the file's folder. The OSErrors of the block name the file."""
    descriptor = _open_folder(path.parent, inside)
    try:
        with _naming(path):
            yield descriptor
    finally:
        os.close(descriptor)


def open_file(path: Path, flags: int, inside: Path | None = None) -> int:
    """The descriptor of a regular file. `flags` are those of `os.open`."""
    with _parent(path, inside) as folder:
        descriptor = os.open(path.name, flags | _FILE, 0o644, dir_fd=folder)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, "")
        return descriptor


def read_bytes(path: Path, inside: Path | None = None) -> bytes:
    """A file's content."""
    with os.fdopen(open_file(path, os.O_RDONLY, inside), "rb") as file:
        return file.read()


@contextmanager
def reading(path: Path) -> Iterator[BinaryIO]:
    """A file that is open to read. Errors: UserError where it cannot be read."""
    try:
        with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
            yield file
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """A file's text. Errors: UserError where it cannot be read, or is not UTF-8."""
    try:
        with reading(path) as file:
            return file.read().decode()
    except UnicodeDecodeError:
        raise UserError(f"{path}: cannot be read: not UTF-8") from None


def exists(path: Path) -> bool:
    """Whether there is anything of this name, also a link that leads nowhere."""
    return os.path.lexists(path)


def is_regular(path: Path) -> bool:
    """Whether this is a regular file, and no link to one."""
    return exists(path) and stat.S_ISREG(path.lstat().st_mode)


def names(folder: Path, inside: Path | None = None) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    try:
        descriptor = _open_folder(folder, inside)
    except FileNotFoundError:
        return []
    try:
        return sorted(os.listdir(descriptor))  # noqa: PTH208
    finally:
        os.close(descriptor)


def make_folder(folder: Path, inside: Path) -> None:
    """Make a folder below `inside`, and the folders between them, where they are missing."""
    inside.mkdir(parents=True, exist_ok=True)
    path = inside
    for name in folder.relative_to(inside).parts:
        path /= name
        with _parent(path, inside) as parent, suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)


def write_atomically(path: Path, text: str | bytes | Iterable[str | bytes], inside: Path | None = None) -> None:
    """Write aside, flush to the disk, rename into place. A reader sees the old file or the new one, nothing between.

    The text may come in parts. A link of this name is replaced, and not followed.
    """
    aside = f".{path.name}.partial"
    with _parent(path, inside) as folder:
        with suppress(FileNotFoundError):
            os.unlink(aside, dir_fd=folder)
        _write(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o644, dir_fd=folder), text)
        os.replace(aside, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def write_new(path: Path, content: bytes, inside: Path | None = None) -> None:
    """Write a file that is not there yet, in a folder that is there, and flush it to the disk."""
    with _parent(path, inside) as folder:
        _write(os.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE, 0o644, dir_fd=folder), content)


def rename(path: Path, name: str, inside: Path | None = None) -> None:
    """Give a file another name in its folder. A file or a link of this name is replaced."""
    with _parent(path, inside) as folder:
        os.replace(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def write_if_changed(path: Path, text: str) -> None:
    """Write a whole file, unless it has this content already."""
    if not has_content(path, [text]):
        write_atomically(path, text)


def has_content(path: Path, text: Iterable[str]) -> bool:
    """Whether there is a file with this text, which comes in parts."""
    if not exists(path):
        return False
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        parts = (part.encode() for part in text)
        return all(file.read(len(part)) == part for part in parts) and not file.read(1)


def append(path: Path, text: str | bytes, *, create: bool = False) -> None:
    """Add to a file's end and flush it to the disk. A file that is missing is made only with `create`.

    A table that somebody removes while it is written must not be made anew: it would have no header.
    """
    try:
        descriptor = open_file(path, os.O_WRONLY | os.O_APPEND | (os.O_CREAT if create else 0))
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "removed while bnbench wrote it", str(path)) from None
    with _naming(path):
        _write(descriptor, text)


def _write(descriptor: int, text: str | bytes | Iterable[str | bytes]) -> None:
    """Write all of the text, flush it to the disk, and close the file."""
    try:
        for part in [text] if isinstance(text, str | bytes) else text:
            # This uses os.write, not a file object: a SIGKILL loses what is in Python's buffer.
            remaining = memoryview(part.encode() if isinstance(part, str) else part)
            while remaining:
                remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def delete(path: Path, inside: Path | None = None) -> None:
    """Delete a file where it is there. Of a link, only the link is deleted."""
    with suppress(FileNotFoundError), _parent(path, inside) as folder:
        os.unlink(path.name, dir_fd=folder)


def remove_if_empty(folder: Path, inside: Path | None = None) -> None:
    """Remove a folder that holds nothing. A folder that holds files of others stays."""
    if exists(folder) and not names(folder, inside):
        with suppress(FileNotFoundError), _parent(folder, inside) as parent:
            os.rmdir(folder.name, dir_fd=parent)
