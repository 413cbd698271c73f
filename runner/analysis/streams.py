"""Which seed each random stream of a run has, and which streams vary together."""

from collections.abc import Mapping, Sequence
from typing import get_args

import pandas as pd

from runner.analysis.pairing import Codes, group
from runner.config.run_spec import Stream

STREAMS: Sequence[Stream] = get_args(Stream)


def stream_seeds(parameters: pd.DataFrame) -> pd.DataFrame:
    """The seed of each stream for each run: [runs, streams]. A stream that the seeds do not change has seed 0.

    >>> table = pd.DataFrame({"seed": [1, 2], "seed_weights": ["null", 5]})
    >>> stream_seeds(table)[["weights", "batches", "split"]].to_numpy().tolist()
    [[1, 1, 0], [5, 2, 0]]
    """
    seed = parameters.get("seed", pd.Series(0, index=parameters.index))
    found: dict[str, pd.Series] = {}
    for stream in STREAMS:
        own = parameters.get(f"seed_{stream}", seed)
        # A column with "null" holds numbers and texts.
        found[stream] = own.where(pd.to_numeric(own, errors="coerce").notna(), seed)

    def without(stream: str, name: str, value: object) -> None:
        same = parameters[name] == value if name in parameters else pd.Series(True, index=parameters.index)
        found[stream] = found[stream].mask(same, 0)

    without("split", "split", "fixed")
    without("subset", "subset", "first")
    if "share_batches" in parameters:
        without("batches", "share_batches", True)
    if "shuffle" in parameters and ("augment" not in parameters or (parameters["augment"] == "[]").all()):
        without("batches", "shuffle", False)
    return pd.DataFrame(found).infer_objects()


def sources(seeds: pd.DataFrame) -> Mapping[tuple[str, ...], Codes]:
    """The sources of randomness: streams that vary, those together whose seeds change together → a code per run."""
    found: dict[bytes, tuple[list[str], Codes]] = {}
    for stream in map(str, seeds):
        code = group(seeds, [stream])
        if code.any():
            found.setdefault(code.tobytes(), ([], code))[0].append(stream)
    return {tuple(streams): code for streams, code in found.values()}


def shared_seeds(parameters: pd.DataFrame) -> str:
    """Says that runs with different seeds share the seed of a stream; empty where they do not.

    >>> crossed = pd.DataFrame({"seed_weights": [0, 0, 1, 1], "seed_batches": [0, 1, 0, 1]})
    >>> shared_seeds(crossed)
    '4 combinations of seeds have only 2 of weights, 2 of batches'
    >>> shared_seeds(pd.DataFrame({"seed": [0, 1, 2]}))
    ''
    """
    seeds = stream_seeds(parameters).drop_duplicates()
    counts = {streams: int(code.max()) + 1 for streams, code in sources(seeds).items()}
    few = [f"{count} of {' and '.join(streams)}" for streams, count in counts.items() if count < len(seeds)]
    return f"{len(seeds)} combinations of seeds have only {', '.join(few)}" if few else ""
