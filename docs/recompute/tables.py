"""The tables of a sweep."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from .statistics import Values

SELECTION = range(980, 1000)
"""The seeds that choose learning rates. They are not tested."""


@dataclass(frozen=True)
class Sweep:
    """The tables of one sweep. A run that failed has no value; its number is missing in what the functions return."""

    folder: Path

    def read(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / name, keep_default_na=False, na_values=["", "nan"], low_memory=False)

    @cached_property
    def runs(self) -> pd.DataFrame:
        runs = self.read("runs.csv").set_index("run", drop=False)
        return runs[runs["status"].isin(["ok", "diverged"])]

    @cached_property
    def metrics(self) -> pd.DataFrame:
        return self.of_ended(self.read("metrics.csv"))

    @cached_property
    def readings(self) -> pd.DataFrame:
        """The readings within epochs; those at their ends where there are no others."""
        several = (self.folder / "curves.csv").exists()
        return self.of_ended(self.read("curves.csv")) if several else self.metrics

    @cached_property
    def probes(self) -> pd.DataFrame:
        return self.of_ended(self.read("probes.csv"))

    def of_ended(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[table["run"].isin(self.runs["run"])].sort_values(["run", "step"], kind="stable")

    def late(self, table: pd.DataFrame, epochs: float) -> pd.DataFrame:
        """The rows of each run's last epochs. A reading at the end of epoch 4 has the epoch 4, a later one more."""
        return table[table["epoch"] > table["run"].map(self.runs["epochs"]) - epochs]

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds that are tested."""
        return sorted(set(self.read("runs.csv")["seed"]) - set(SELECTION))

    def of_arm(self, values: pd.Series, **where: object) -> Values:
        """The values, by run, of the tested seeds' runs; NaN where a run has none."""
        chosen = self.chosen(**where)
        return values.reindex(chosen["run"]).set_axis(chosen["seed"]).reindex(self.seeds).to_numpy(float)

    def chosen(self, **where: object) -> pd.DataFrame:
        """The runs with these parameters. A parameter's dots are written as two underscores."""
        runs = self.runs
        for name, value in where.items():
            runs = runs[runs[name.replace("__", ".")] == value]
        return runs
