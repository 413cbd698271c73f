"""Print a line for each number that a document says, and the tables do not give. The exit code is 1 then.

The documents are docs/claims.md, docs/reproductions.md, and the comparisons in README.md, docs/any-network.md and
docs/anyones-table.md.
"""

import sys
from pathlib import Path

from .claims import claims
from .comparisons import printed, readme
from .found import found as first_screen
from .reproductions import reproductions

ROOT = Path(__file__).parent.parent.parent


def disagreements(root: Path = ROOT, results: Path = ROOT / "results/reference") -> list[str]:
    """The lines, for documents below `root` and tables in `results`."""
    return [line for check in (claims, first_screen, printed, readme, reproductions) for line in check(root, results)]


if __name__ == "__main__":
    found = disagreements()
    print("\n".join(found) or "The tables give every number that the documents say.")
    sys.exit(bool(found))
