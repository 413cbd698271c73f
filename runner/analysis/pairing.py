"""Which runs are of which arm, and which are pairs: equal in everything but the arm, and proven so by hash."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from runner.config.contrast import must_agree, own_arguments
from runner.errors import UserError, allowed


class Arms:
    """Which run is of which arm, and which parameters belong to some arms only."""

    def __init__(self, parameters: pd.DataFrame, axis: str | None, baseline: object | None) -> None:
        self.axis = axis
        self.code = group(parameters, [axis] if axis else [])
        self.baseline = _baseline_code(parameters[axis], self.code, baseline) if axis else 0
        own = own_arguments(names(parameters), axis) if axis else []
        has = parameters[own].notna().groupby(self.code).any()
        self._has = {int(str(code)): {name for name in own if has[name].loc[code]} for code in has.index}
        self.partial = [name for name in own if not has[name].all()]
        """The parameters that at least one arm does not have."""

    @property
    def others(self) -> list[int]:
        return [code for code in range(self.code.max() + 1) if code != self.baseline] if self.axis else []

    def must_agree(self, arm: int, parameters: Sequence[str]) -> list[str]:
        """The parameters in which a run of `arm` and a run of the baseline must agree to be a pair."""
        return must_agree(parameters, self.axis or "", self._has[arm], self._has[self.baseline])


def _baseline_code(column: pd.Series, code: NDArray[np.int64], baseline: object | None) -> int:
    values = [plain(column.iloc[index]) for index in np.unique(code, return_index=True)[1]]
    as_in_table = baseline if isinstance(baseline, str) else json.dumps(baseline)
    for index, value in enumerate(values):
        if value == baseline or str(value) == as_in_table:
            return index
    raise UserError(
        f"no run is of the baseline arm {column.name}: {baseline}; the arms are {allowed(map(str, values))}"
    )


def pairs(parameters: pd.DataFrame, facts: pd.DataFrame, arms: Arms) -> pd.DataFrame:
    """The pairs, indexed by the run that is not the baseline's: both values, whether weights and batches differ."""
    finite = facts["value"].notna().to_numpy()
    varying = [name for name in names(parameters) if parameters[name].nunique(dropna=False) > 1]
    found = []
    for arm in arms.others:
        key = group(parameters, arms.must_agree(arm, varying))
        runs = facts.assign(key=key, run=facts.index)
        of_arm, of_baseline = (runs[finite & (arms.code == code)] for code in (arm, arms.baseline))
        pairs = of_arm.merge(of_baseline, on="key", suffixes=("", "_base"))
        pairs["weights"] = (pairs["weights_hash"] != pairs["weights_hash_base"]) | (pairs["weights_hash"] == "")
        pairs["batches"] = _batches_differ(pairs)
        # A baseline with variants of its own has several runs for one of the arm's: their mean is its partner.
        how = {"value": "first", "value_base": "mean", "weights": "any", "batches": "any", "run_base": "first"}
        found.append(pairs.groupby("run").agg(how))
    return pd.concat(found) if found else facts.iloc[:0]


def _batches_differ(pairs: pd.DataFrame) -> pd.Series:
    ours, theirs = pairs["batches_hash"], pairs["batches_hash_base"]
    # Only a run that diverged in its first epoch may have no digest; without one, nothing is proven.
    differ = ((ours == "") & (pairs["status"] == "ok")) | ((theirs == "") & (pairs["status_base"] == "ok"))
    for index in pairs.index[ours != theirs]:
        a, b = ours[index].split(), theirs[index].split()
        both = min(len(a), len(b))
        differ[index] |= a[:both] != b[:both]
    return differ


def group(table: pd.DataFrame, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number per row: equal in `columns` (empty equals empty), equal number; counted in order of appearance."""
    code = np.zeros(len(table), dtype=np.int64)
    for column in columns:
        values = pd.factorize(table[column], use_na_sentinel=False)[0]
        code = pd.factorize(code * (values.max() + 1) + values)[0].astype(np.int64)
    return code


def names(table: pd.DataFrame) -> list[str]:
    return [str(name) for name in table.columns]


def plain(value: Any) -> Any:
    """A Python value of a table's: no NumPy, None where empty."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value
