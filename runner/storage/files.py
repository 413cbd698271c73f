"""Files that a kill leaves whole: written aside and renamed, or appended and flushed."""

import os
from pathlib import Path

from runner.errors import UserError


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write aside, flush to the disk, rename into place. A reader sees the old file or the new one, nothing between."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)
    append(aside, text)
    aside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """A file's text. Errors: UserError where it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None


def write_if_changed(path: Path, text: str) -> None:
    """Write a whole file, unless it has this content already."""
    if not path.exists() or path.read_bytes() != text.encode():
        write_atomically(path, text)


def append(path: Path, text: str | bytes) -> None:
    """Add to a file's end and flush it to the disk. Errors: OSError that names the file."""
    # This uses os.write, not a file object: a SIGKILL loses what is in Python's buffer.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        remaining = memoryview(text.encode() if isinstance(text, str) else text)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    except OSError as error:
        # The original error, such as "no space left", does not name the file.
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
