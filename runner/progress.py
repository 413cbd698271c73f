"""The sweep as a person watches it: two bars on a terminal, one line an epoch in a pipe; always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

from runner.rows import CurveRow, EpochRow, ProbeRow, RunResult


class Progress:
    """A sink that shows. `runs` maps the id of a run to train to (number, label, epochs), `planned` counts all of the
    sweep; `quiet` shows failures only.
    """

    def __init__(
        self, runs: Mapping[str, tuple[int, str, int]], planned: int, *, quiet: bool = False, verbose: bool = False
    ) -> None:
        self.runs, self.planned, self.quiet, self.verbose = runs, planned, quiet, verbose
        self.bars = sys.stderr.isatty() and not quiet
        self.sweep = tqdm(total=len(runs), desc="sweep", unit="run", disable=not self.bars, position=0)
        # No rate: with two workers the epochs of two runs take turns in this line.
        layout = "{desc}  epoch {n_fmt}/{total_fmt}{postfix}"
        self.run = tqdm(total=1, bar_format=layout, disable=not self.bars, position=1, leave=False)

    def on_epoch(self, row: EpochRow) -> None:
        number, label, epochs = self.runs[row.run_id]
        if self.bars:
            self.run.set_description_str(f"run {number} {label}", refresh=False)
            self.run.total, self.run.n = epochs, row.epoch
            self.run.set_postfix(loss=f"{row.train_loss:.4f}", valid=f"{row.valid_accuracy:.4f}")
        elif not self.quiet:
            self._line(
                f"run {number}/{self.planned} {label}  epoch {row.epoch}/{epochs}  "
                f"loss {row.train_loss:.4f}  accuracy {row.train_accuracy:.4f}  "
                f"valid loss {row.valid_loss:.4f}  valid accuracy {row.valid_accuracy:.4f}  {row.epoch_duration:.1f} s"
            )

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        """Readings within an epoch are for the tables."""

    def on_result(self, result: RunResult) -> None:
        number, label, _ = self.runs[result.run_id]
        if result.status not in ("ok", "interrupted"):
            self._line(f"run {number} {label} {result.status}{': ' if result.error else ''}{result.error}")
        if result.traceback and self.verbose:
            self._line(result.traceback)
        self.sweep.update()

    def note(self, text: str) -> None:
        """Of where runs train; failures apart, nothing is said when quiet."""
        if not self.quiet:
            self._line(text)

    def close(self) -> None:
        self.run.close()
        self.sweep.close()

    def _line(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)
