"""TensorBoard: a folder for each run, `RESULTS/tensorboard/run-001`, so that `tensorboard --logdir results` shows all.

By epoch: the run's scalars, each under its column's name. By optimizer step: the readings within epochs under `curve/`,
the probes under `LAYER/MEASURE`, the histograms under the parameters' names. A run's grid values are with its results.
"""

import os
import re
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from runner.errors import UserError
from runner.monitoring.trackers.tracker import Opener, TrackedSweep, require
from runner.storage import files, histograms
from runner.storage.rows import CURVE_FIELDS, EPOCH_FIELDS, CurveRow, EpochRow, ProbeRow, RunResult

SCALARS = tuple(name for name in EPOCH_FIELDS if name not in ("epoch", "step"))
CURVES = tuple(name for name in CURVE_FIELDS if name not in ("epoch", "step", "duration"))

_FOLDER, _FILE = re.compile(r"run-[0-9]+"), re.compile(r"events\.out\.tfevents\.[0-9]+\..+")
"""The names that this tracker makes."""


def tensorboard() -> Opener:
    """Event files for TensorBoard, in RESULTS/tensorboard/."""
    modules = ("tensorboard.summary.writer.record_writer", "torch.utils.tensorboard")
    require("TensorBoard", "tensorboard", modules)
    return TensorBoard


class TensorBoard:
    """Writes event files. A file is open only during a write: a stack may have more runs than a process may open files.

    Errors: UserError where the output folder is not empty.
    """

    def __init__(self, sweep: TrackedSweep) -> None:
        self.sweep, self.root = sweep, sweep.output or sweep.folder / "tensorboard"
        if sweep.output and any(sweep.output.glob("*")):
            raise UserError(f"{sweep.output} is not empty; -o takes a folder of its own")
        self.where = str(self.root)
        self._file = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"
        self._histograms: dict[str, list[ProbeRow]] = {}
        """Run id → the rows of the histograms of its last reading."""
        self._ended: list[str] = []
        # The results folder may come from somebody else: nothing in it is reached through a link.
        self._inside = sweep.output or sweep.folder
        for folder in (self.root / name for name in files.names(self.root, self._inside) if _FOLDER.fullmatch(name)):
            for name in filter(_FILE.fullmatch, files.names(folder, self._inside)):
                files.delete(folder / name, self._inside)
            files.remove_if_empty(folder, self._inside)

    def on_epoch(self, row: EpochRow) -> None:
        self._write_histograms(row.run_id)
        self._write_scalars(row.run_id, row.epoch, {name: getattr(row, name) for name in SCALARS})

    def on_reading(self, row: CurveRow | ProbeRow) -> None:
        kept = self._histograms.get(row.run_id)
        if kept and kept[0].step != row.step:
            self._write_histograms(row.run_id)
        if isinstance(row, CurveRow):
            self._write_scalars(row.run_id, row.step, {f"curve/{name}": getattr(row, name) for name in CURVES})
        elif histograms.is_part(row):
            self._histograms.setdefault(row.run_id, []).append(row)
        else:
            tag = f"{row.layer}/{row.measure}" if row.layer else row.measure
            self._write_scalars(row.run_id, row.step, {tag: row.value})

    def on_result(self, result: RunResult) -> None:
        self._write_histograms(result.run_id)
        if result.status == "interrupted":
            return
        self._ended.append(result.run_id)
        from torch.utils.tensorboard.summary import hparams

        outcomes = {f"result/{name}": value for name, value in result.outcomes.items()}
        parameters = {name: _number(text) for name, text in self.sweep.grid_values(result.run_id).items()}
        for summary in hparams(parameters, outcomes):
            self._write(result.run_id, 0, summary.value)
        self._write_scalars(result.run_id, len(result.rows), outcomes)

    def caught_up(self) -> None:
        """Everything is written already."""

    def close(self) -> None:
        for run_id in list(self._histograms):
            self._write_histograms(run_id)
        if warnings := self.sweep.warnings():
            from torch.utils.tensorboard.summary import text

            for run_id in self._ended:
                self._write(run_id, 0, text("warnings", "\n\n".join(warnings)).value)

    def _write_histograms(self, run_id: str) -> None:
        """Write the histograms of a run's last reading: all of their rows are here."""
        rows = self._histograms.pop(run_id, [])
        for (layer, name), histogram in histograms.collect(rows).items():
            self._write(run_id, rows[0].step, [{"tag": _tag(layer, name), "histo": _histogram(histogram)}])

    def _write_scalars(self, run_id: str, step: int, values: Mapping[str, float]) -> None:
        self._write(run_id, step, [{"tag": tag, "simple_value": value} for tag, value in values.items()])

    def _write(self, run_id: str, step: int, values: Iterable[Any]) -> None:
        """Add `Summary.Value`s, or dicts of their fields, to a run's file."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self.root / self.sweep.runs[run_id].name / self._file
        files.make_folder(path.parent, self._inside)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        with os.fdopen(files.open_file(path, flags, self._inside), "ab") as file:
            writer = RecordWriter(file)
            if file.tell() == 0:
                writer.write(Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString())
            event = Event(wall_time=time.time(), step=step, summary={"value": values})
            writer.write(event.SerializeToString())


def _tag(layer: str, name: str) -> str:
    """A parameter's name as in `named_parameters`, such as `conv1.weight`; its gradient's ends in `.grad`."""
    parameter = name.removesuffix("_gradient")
    tag = f"{layer}.{parameter}" if layer else parameter
    return tag if parameter == name else f"{tag}.grad"


def _histogram(histogram: histograms.Histogram) -> dict[str, Any]:
    """The fields of a `HistogramProto`. The sums are estimated from the bins' middles; TensorBoard shows neither."""
    limits = histogram.limits
    half = (histogram.high - histogram.low) / len(limits) / 2
    middles = [(limit - half, count) for limit, count in zip(limits, histogram.counts, strict=True)]
    return {
        "min": histogram.low,
        "max": histogram.high,
        "num": sum(histogram.counts),
        "sum": sum(middle * count for middle, count in middles),
        "sum_squares": sum(middle**2 * count for middle, count in middles),
        "bucket_limit": limits,
        "bucket": histogram.counts,
    }


def _number(text: str) -> float | str:
    with suppress(ValueError):
        return float(text)
    return text
