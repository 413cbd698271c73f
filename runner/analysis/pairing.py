"""Which runs belong to which arm, and which runs are pairs: equal in everything but the arm, as their hashes prove."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.config import contrast
from runner.errors import UserError, allowed

Codes = NDArray[np.int64]
"""One number per run: runs of a group have the same number."""


DOUBTS = ("weights", "batches", "code")
"""What the two runs of a pair must share: starting weights, batches, and the code that trained them."""


class Arms:
    """Which run belongs to which arm, and which parameters only some arms have."""

    def __init__(self, parameters: pd.DataFrame, axis: str | None, baseline: object | None) -> None:
        self.axis = axis
        self.code = group(parameters, [axis] if axis else [])
        self.baseline = _baseline_code(parameters[axis], self.code, baseline) if axis else 0
        own = contrast.own_arguments(names(parameters), axis) if axis else []
        self._has = parameters[own].notna().groupby(self.code).any()  # [arms, parameters]
        self.partial = [name for name in own if not self._has[name].all()]
        """The parameters that at least one arm does not have."""

    def must_agree(self, arm: int, parameters: Sequence[str]) -> list[str]:
        """The parameters in which a run of `arm` and a run of the baseline must agree to be a pair."""
        has = [self._has.columns[self._has.loc[code].to_numpy(bool)] for code in (arm, self.baseline)]
        return contrast.must_agree(parameters, self.axis or "", *has)


def _baseline_code(column: pd.Series, code: Codes, baseline: object | None) -> int:
    arms = [plain(value) for value in column[~pd.Series(code).duplicated()]]
    as_in_table = baseline if isinstance(baseline, str) else json.dumps(baseline)
    for index, arm in enumerate(arms):
        if arm == baseline or str(arm) == as_in_table:
            return index
    raise UserError(f"no run is of the baseline arm {column.name}: {baseline}; the arms are {allowed(map(str, arms))}")


def pairs(parameters: pd.DataFrame, facts: pd.DataFrame, arms: Arms) -> pd.DataFrame:
    """The pairs, indexed by the run that is not the baseline's.

    The columns are `value`, `value_base`, `run_base`, `code_hash`, and whether the `DOUBTS` differ or are not known.
    """
    finite = facts["value"].notna().to_numpy()
    varying = [name for name in names(parameters) if parameters[name].nunique(dropna=False) > 1]
    # A baseline with variants of its own has several runs for one run of the arm. Their mean is its partner.
    how = {"value": "first", "value_base": "mean", "run_base": "first", "code_hash": "first"}
    how |= dict.fromkeys(DOUBTS, "any")
    found: list[pd.DataFrame] = []
    for arm in sorted(set(arms.code.tolist()) - {arms.baseline}):
        key = group(parameters, arms.must_agree(arm, varying))
        runs = facts.assign(key=key, run=facts.index)
        of_arm, of_baseline = (runs[finite & (arms.code == code)] for code in (arm, arms.baseline))
        both = of_arm.merge(of_baseline, on="key", suffixes=("", "_base"))
        both["weights"] = (both["weights_hash"] != both["weights_hash_base"]) | (both["weights_hash"] == "")
        both["batches"] = _batches_differ(both)
        # Two runs of an older bnbench have no digests, so nothing says that their code differs.
        both["code"] = both["code_hash"] != both["code_hash_base"]
        found.append(both.groupby("run").agg(how))
    if found:
        return pd.concat(found)
    return facts[:0].assign(value_base=0.0, run_base=0, **dict.fromkeys(DOUBTS, False))


def unproven(pairs: pd.DataFrame) -> int:
    """The number of pairs whose hashes do not prove that they are pairs."""
    return int(pairs[list(DOUBTS)].any(axis=1).sum())


def _batches_differ(pairs: pd.DataFrame) -> pd.Series:
    digests, baseline = pairs["batches_hash"], pairs["batches_hash_base"]
    # Only a run that diverged in its first epoch may have no digest. Any other run without one proves nothing.
    missing = (digests == "") & (pairs["status"] == "ok")
    differ = missing | ((baseline == "") & (pairs["status_base"] == "ok"))
    for index in pairs.index[digests != baseline]:
        a, b = digests[index].split(), baseline[index].split()
        both = min(len(a), len(b))
        differ[index] |= a[:both] != b[:both]
    return differ


def group(table: pd.DataFrame, columns: Sequence[str]) -> Codes:
    """A number per row, in order of appearance. Rows that are equal in `columns` have the same number.

    Empty equals empty.
    """
    code = np.zeros(len(table), dtype=np.int64)
    for column in columns:
        values = pd.factorize(table[column], use_na_sentinel=False)[0]
        code = pd.factorize(code * (values.max() + 1) + values)[0].astype(np.int64)
    return code


def names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns]


def plain(value: Any) -> Any:
    """A table's value as Python's own type, or None where it is empty."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
