"""Which version of the code trained which run: two columns of runs.csv, and sentences where there are several.

`code_hash` is one digest of all code that decides a run's numbers. `code_digests` holds one for bnbench and one for
each source file of the plugins, so that a table can name the file that differs.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from runner.errors import line_of

MOST_NAMED = 3
"""So many files of one kind are named; the others are counted."""


def code_hash(environment: Mapping[str, Any]) -> str:
    """A digest of the code that decides a run's numbers, plugins included: 16 hex digits; empty where it is not known.

    It does not depend on where the files are.

    >>> code_hash({"code": "a", "plugins": {"mine.py": "b"}})
    '7e18f737311b2dc3'
    """
    if "code" not in environment:
        return ""
    parts = [environment["code"], *environment.get("plugins", {}).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def code_digests(environment: Mapping[str, Any]) -> str:
    """12 hex digits for bnbench and for each source file of the plugins; empty where they are not known.

    A file's name does not depend on how deep the sweep's folder is.

    >>> code_digests({"code": "0123456789abcdef", "plugins": {"../mine.py": "ffff"}})
    'bnbench 0123456789ab; mine.py ffff'
    """
    if "code" not in environment:
        return ""
    digests = {"bnbench": environment["code"]}
    for path, digest in environment.get("plugins", {}).items():
        name = re.sub(r"^(\.\./)+", "", path)
        digests[path if name in digests else name] = digest
    return "; ".join(f"{name} {digest[:12]}" for name, digest in digests.items())


def sentences(arms: Sequence[str], versions: Sequence[str], digests: Sequence[str]) -> list[str]:
    """How many runs of each arm another version of the code trained than most runs; none where there is one version.

    arms, versions, digests: each run's arm, `code_hash` and cell of `code_digests`.

    >>> one, two = "bnbench a; own.py b", "bnbench a; own.py c"
    >>> sentences(["batch", "none", "batch"], ["1", "2", "2"], [one, two, two])
    ['1 of 2 runs of batch used another own.py (code_digests in runs.csv).']
    """
    if not versions:
        return []
    first = dict(zip(reversed(versions), reversed(digests), strict=True))
    most, *others = (version for version, _ in Counter(versions).most_common())
    planned = Counter(arms)
    found = []
    for version in others:
        of_version = Counter(arm for arm, other in zip(arms, versions, strict=True) if other == version)
        found.append(f"{_runs(of_version, planned)} {_difference(most, version, first)}.")
    return found


def _runs(some: Counter[str], planned: Counter[str]) -> str:
    """Such as: 3 of 6 runs of each arm."""
    counts = {arm: f"{some[arm]} of {number} runs" for arm, number in planned.items()}
    if len(planned) > 1 and len(set(counts.values())) == 1:
        return f"{next(iter(counts.values()))} of each arm"
    return " and ".join(f"{counts[arm]} of {arm}" if arm else counts[arm] for arm in counts if some[arm])


def _difference(most: str, version: str, digests: Mapping[str, str]) -> str:
    """What the runs of a version did that most runs did not."""
    if not version or not most:
        who = "were trained by an older bnbench, which did not record its code"
        return who if not version else "used code that may be another: an older bnbench trained the others"
    usual, other = _parsed(digests[most]), _parsed(digests[version])
    changed = [name for name in other if name in usual and usual[name] != other[name]]
    parts = [f"used {_listed(changed, 'another ')}"] if changed else []
    if more := [name for name in other if name not in usual]:
        parts.append(f"used {_listed(more)} as well")
    if fewer := [name for name in usual if name not in other]:
        parts.append(f"did not use {_listed(fewer)}")
    # Where a version between two did not record the digests of single files, only the hashes are known.
    text = " and ".join(parts) if parts and usual and other else "used another version of the code"
    return f"{text} (code_digests in runs.csv)"


def _listed(names: Sequence[str], before: str = "") -> str:
    """The names of files, without their folders where that is clear."""
    short = [PurePath(name).name for name in names]
    listed = short if len(set(short)) == len(names) else names
    shown = [before + line_of(name) for name in listed[:MOST_NAMED]]
    left_out = [f"{len(names) - MOST_NAMED} more files"] if len(names) > MOST_NAMED else []
    *first, last = [*shown, *left_out]
    return f"{', '.join(first)} and {last}" if first else last


def _parsed(cell: str) -> dict[str, str]:
    """File → digest."""
    parts = (part.rpartition(" ") for part in cell.split("; ") if part)
    return {name: digest for name, _, digest in parts}
