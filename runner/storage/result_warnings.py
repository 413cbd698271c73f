"""What every table, page and export of results must admit."""

from collections.abc import Iterator, Sequence
from itertools import chain

import pandas as pd

from runner.errors import line_of
from runner.storage import code_versions
from runner.storage.results import Results
from runner.storage.rows import ENDED

CODE = ("code_hash", "code_digests")


def warnings_of(results: Sequence[Results]) -> tuple[str, ...]:
    """Sentences about sweeps that are shown together.

    They name arms that several versions of the code trained, a contrast that was changed or runs that were added after
    runs had begun, sweeps that grew until their verdict was decided, and last batches that are very small.
    """
    axis = results[0].axis
    ended = pd.concat([result.runs[result.runs["status"].isin(ENDED)] for result in results], ignore_index=True)
    arms = list(map(line_of, ended[axis])) if axis and axis in ended else [""] * len(ended)
    code = (list(ended[name].fillna("")) if name in ended else [""] * len(ended) for name in CODE)
    of_folders = chain.from_iterable(
        (*result.contrast_changes, *_grown(result), *result.small_batches) for result in results
    )
    return tuple(dict.fromkeys([*code_versions.sentences(arms, *code), *of_folders]))


def _grown(result: Results) -> Iterator[str]:
    if result.max_seeds is None:
        return
    yield (
        "Seeds are added to this sweep until its verdict is decided. The ordinary p and intervals are not valid: "
        "they take no account of when it ends."
    )
    if result.fixed == "changed":
        yield "The looks before the change were made with another contrast: the verdict is not valid at every look."
