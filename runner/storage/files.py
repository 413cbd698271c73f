"""Files that a kill leaves whole: written aside and renamed, or appended and flushed."""

from __future__ import annotations

import os
from pathlib import Path


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write aside, flush to the disk, rename into place: a reader sees the old file or the new one."""
    aside = path.with_name(f".{path.name}.partial")
    aside.unlink(missing_ok=True)
    append(aside, text)
    aside.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_if_changed(path: Path, text: str) -> None:
    """Write a whole file, unless it holds this text already."""
    if not path.exists() or path.read_bytes() != text.encode():
        write_atomically(path, text)


def append(path: Path, text: str | bytes) -> None:
    """Add to a file's end and flush it to the disk. Errors: OSError that names the file."""
    # os.write, not a file object: Python's buffer is what a SIGKILL loses.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        remaining = memoryview(text.encode() if isinstance(text, str) else text)
        while remaining:
            remaining = remaining[os.write(descriptor, remaining) :]
        os.fsync(descriptor)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None  # "no space left": where?
    finally:
        os.close(descriptor)
