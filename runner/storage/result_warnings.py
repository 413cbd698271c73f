"""What every table, page and export of results must admit."""

from collections.abc import Sequence
from itertools import chain

import pandas as pd

from runner.errors import line_of
from runner.storage import code_versions
from runner.storage.results import Results
from runner.storage.rows import ENDED

CODE = ("code_hash", "code_digests")


def warnings_of(results: Sequence[Results]) -> tuple[str, ...]:
    """Sentences about sweeps that are shown together.

    They name arms that several versions of the code trained, a contrast that was changed after runs had ended, and last
    batches that are very small.
    """
    axis = results[0].axis
    ended = pd.concat([result.runs[result.runs["status"].isin(ENDED)] for result in results], ignore_index=True)
    arms = list(map(line_of, ended[axis])) if axis and axis in ended else [""] * len(ended)
    code = (list(ended[name].fillna("")) if name in ended else [""] * len(ended) for name in CODE)
    of_folders = chain.from_iterable((*result.contrast_changes, *result.small_batches) for result in results)
    return tuple(dict.fromkeys([*code_versions.sentences(arms, *code), *of_folders]))
