"""Make the tables of docs/anyones-table.md: `python docs/anyones_table.py`. It takes a minute.

Three regressors of scikit-learn learn its diabetes data, with 12 random splits. The tables hold their errors on the
test part.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsRegressor

TABLES = Path(__file__).parent.parent / "results/reference/tables"

SEEDS = range(12)


def main() -> None:
    x, y = load_diabetes(return_X_y=True)
    rows = []
    for seed in SEEDS:
        train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=0.25, random_state=seed)
        regressors = {
            "ridge": Ridge(alpha=0.1),
            "forest": RandomForestRegressor(200, min_samples_leaf=5, random_state=seed),
            "neighbours": KNeighborsRegressor(15),
        }
        for method, regressor in regressors.items():
            guess = regressor.fit(train_x, train_y).predict(test_x)
            error, r2 = root_mean_squared_error(test_y, guess), r2_score(test_y, guess)
            rows.append([method, seed, f"{error:.4f}", f"{r2:.4f}"])
    write("diabetes.csv", [["method", "seed", "rmse", "r2"], *rows])
    errors = {(method, seed): rmse for method, seed, rmse, _ in rows}
    methods = list(dict.fromkeys(method for method, _ in errors))
    wide = [[str(seed), *(errors[method, seed] for method in methods)] for seed in SEEDS]
    write("diabetes_wide.csv", [["seed", *methods], *wide])


def write(name: str, rows: Sequence[Sequence[object]]) -> None:
    TABLES.mkdir(parents=True, exist_ok=True)
    with (TABLES / name).open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
