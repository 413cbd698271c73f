"""What a table says of a sweep to which seeds were added until its verdict was decided."""

from collections.abc import Iterator

from runner.analysis.records import Comparison


def notes(comparison: Comparison) -> Iterator[str]:
    """Why the sweep ended, by which test, and which numbers of the table are not valid after such an end."""
    for name, found in comparison.sequential.items():
        where = f" ({name})" if len(comparison.sequential) > 1 else ""
        yield f"Sequential{where}: {found.conclusion}."
    if comparison.sequential:
        yield (
            "The sequential verdict is by a sign test of the median of the pairs' differences in validation accuracy "
            "at the last epoch. It is valid at every look (an e-process, by Ville's inequality). The other intervals "
            "and p of this table are not valid: they take no account of when the sweep ended."
        )
