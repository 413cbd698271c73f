"""`plugins/`: the source files of every version of the plugins that trained a sweep's runs.

A file's name ends in the digits that `code_digests` in runs.csv has for it.
"""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

from runner.storage import files
from runner.storage.folder import PLUGINS

MOST = 2**20
"""A file with more bytes is not kept."""

MOST_TOGETHER = 2**24
"""Files are kept up to so many bytes in the whole folder."""

_NAME = re.compile(r"[\w.-]+-[0-9a-f]{12}(\.\w+)?(\.partial)?", re.ASCII)


def kept(folder: Path) -> dict[str, int]:
    """Name → bytes, of the files in the folder. Errors: OSError where the folder is a link."""
    return {name: (folder / PLUGINS / name).lstat().st_size for name in files.names(folder / PLUGINS, folder)}


def keep(folder: Path, sources: Iterable[Path]) -> list[str]:
    """Copy source files into the sweep's folder. Returns a sentence for each file that is not kept."""
    sizes, left_out = kept(folder), []
    for path in sources:
        content = path.read_bytes()
        name = file_name(path, hashlib.sha256(content).hexdigest())
        if name in sizes:
            continue
        if len(content) > MOST or len(content) + sum(sizes.values()) > MOST_TOGETHER:
            left_out.append(f"{path.name} is not kept in {PLUGINS}/: it has {len(content):,} bytes")
            continue
        files.make_folder(folder / PLUGINS, folder)
        files.write_atomically(folder / PLUGINS / name, content, folder)
        sizes[name] = len(content)
    return left_out


def file_name(path: Path, digest: str) -> str:
    """The name under which a source file is kept.

    >>> file_name(Path("my nets/own.py"), "0123456789abcdef")
    'own-0123456789ab.py'
    """
    stem, suffix = (re.sub(r"[^\w.-]", "_", part, flags=re.ASCII) for part in (path.stem, path.suffix))
    return f"{stem[:60]}-{digest[:12]}{suffix}"


def delete(folder: Path) -> None:
    """Delete all files that were kept. Other files stay."""
    for name in filter(_NAME.fullmatch, files.names(folder / PLUGINS, folder)):
        files.delete(folder / PLUGINS / name, folder)
    files.remove_if_empty(folder / PLUGINS, folder)
