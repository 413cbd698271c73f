"""How the difference between the arms depends on another parameter, such as the learning rate."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from runner.analysis.differences import difference_of
from runner.analysis.pairing import DOUBTS, group, plain
from runner.analysis.records import ArmRow
from runner.analysis.runs import Runs, pairs_by_row
from runner.errors import UserError, unknown


def interaction_rows(
    runs: Runs, cells: Sequence[str], variants: Sequence[str], parameter: str, rows: Sequence[ArmRow]
) -> tuple[tuple[ArmRow, ...], tuple[str, object]]:
    """The contrasts of contrasts; and the parameter with its first value, which is the reference.

    For each arm and each other value of the parameter, a row has the difference to the baseline at this value minus
    that at the reference. It is computed for each seed, because all differences of a seed share its luck.
    `rows`: the rows of the comparison.
    Errors: UserError for a parameter that makes no cell, and where the config has no contrast.
    """
    if runs.arms.axis is None:
        raise UserError("--interaction needs a contrast in the config")
    if not cells:
        raise UserError(f"--interaction {parameter}: only the arm and the seed differ here; it needs a third parameter")
    if parameter not in cells:
        raise UserError(f"--interaction: {unknown('parameter', parameter, list(cells))}")
    paired = _differences(runs, [*cells, runs.arms.axis, *variants])
    reference = plain(runs.parameters[parameter].iloc[0])
    at_reference = {_key(row, parameter): row for row in rows if row.cell[parameter] == reference}
    found = []
    for row in rows:
        base = at_reference.get(_key(row, parameter))
        if row.difference is None or base is None or base is row:
            continue
        pairs, others = (paired.get(_whole(each)) for each in (row, base))
        if pairs is not None and others is not None:
            found.append(_against(row, pairs, others, runs.metric.better))
    if not found:
        raise UserError(f"--interaction {parameter}: no arm has pairs at two of its values")
    return tuple(found), (parameter, reference)


def _differences(runs: Runs, columns: Sequence[str]) -> dict[tuple[object, ...], pd.DataFrame]:
    """The pairs of each row of the comparison, by its values of these columns."""
    code = group(runs.parameters, columns)
    first = runs.parameters.loc[~pd.Series(code).duplicated(), list(columns)]
    keys = {code[run]: tuple(map(plain, values)) for run, *values in first.itertuples()}
    return {
        keys[row]: pairs.set_index("repeat") for row, pairs in pairs_by_row(runs, runs.facts["value"], code).items()
    }


def _whole(row: ArmRow) -> tuple[object, ...]:
    return (*row.cell.values(), row.arm, *row.variant.values())


def _key(row: ArmRow, parameter: str) -> tuple[object, ...]:
    return (*(value for name, value in row.cell.items() if name != parameter), row.arm, *row.variant.values())


def _against(row: ArmRow, pairs: pd.DataFrame, reference: pd.DataFrame, better: int) -> ArmRow:
    """The row with the differences of its pairs minus those at the reference, seed by seed."""
    both = pairs.merge(reference, left_index=True, right_index=True, suffixes=("", "_reference"))
    table = both[["code_hash", *DOUBTS]].copy()
    table[list(DOUBTS)] |= both[[f"{name}_reference" for name in DOUBTS]].to_numpy()
    table["code"] |= both["code_hash"] != both["code_hash_reference"]
    table["value"] = both["value"] - both["value_base"]
    table["value_base"] = both["value_reference"] - both["value_base_reference"]
    return replace(row, n=len(table), mean=None, sd=None, difference=difference_of(table, better), to_target=None)
