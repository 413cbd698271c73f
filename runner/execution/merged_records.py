"""What the files beside the tables say of a sweep that was merged: its environment, its contrast, its stacks."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from runner.errors import UserError
from runner.storage import contrast_history
from runner.storage import stacks as stack_file
from runner.storage.contrast_history import Entry
from runner.storage.resume import differences, read_environment
from runner.storage.stacks import Stacks

HARDWARE = ("cpu", "cpu_capability", "cuda", "gpus", "kernels")
"""The entries of environment.json in which shards may differ. Pairs stay together, so each pair has one machine."""


def environment(folders: Sequence[Path], place: Path) -> dict[str, Any]:
    """The environment of the first shard, with what the others have changed, for a sweep whose folder is `place`.

    Errors: UserError where a shard has none, or where shards were trained by other code or packages, or on other data.
    """
    found = []
    for folder in folders:
        if (each := read_environment(folder)) is None:
            raise UserError(f"{folder}: its environment.json is missing or damaged, so its code and data are not known")
        found.append(each)
    changes = []
    for folder, each in zip(folders, found, strict=True):
        other = differences(found[0], each)
        if wrong := [
            f"{name}: {old} and {new}" for name, (old, new) in other.items() if name.split()[0] not in HARDWARE
        ]:
            raise UserError(f"{folders[0]} and {folder}: not trained in the same way: {'; '.join(sorted(wrong))}")
        earlier = each.get("changed")
        changes += earlier if isinstance(earlier, list) else []
        changes += [{name: {"from": old, "to": new} for name, (old, new) in other.items()}] if other else []
    distinct = {json.dumps(change, sort_keys=True): change for change in changes}
    moved = {"folder": str(place.resolve())} if "folder" in found[0] else {}
    return {**found[0], **moved, **({"changed": list(distinct.values())} if distinct else {})}


def contrast(folders: Sequence[Path], runs: int) -> str | None:
    """contrast.json of a sweep of so many runs; None where a shard has none, so that nobody knows what was fixed.

    The first shard that began has fixed the contrast. A change in any shard is one of the sweep.
    """
    entries = []
    for folder in folders:
        history = contrast_history.read(folder)
        if history is None:
            return None
        later = [(history[-1].runs_planned or 0) - (entry.runs_planned or 0) for entry in history]
        entries += [replace(entry, runs_planned=runs - more) for entry, more in zip(history, later, strict=True)]
    merged: list[Entry] = []
    for entry in sorted(entries, key=lambda entry: entry.time):
        if merged and not merged[-1].changes(entry) and not merged[-1].added(entry):
            ended = max(merged[-1].runs_ended, entry.runs_ended)
            begun = max(merged[-1].runs_begun or 0, entry.runs_begun or 0)
            merged[-1] = replace(merged[-1], runs_ended=ended, runs_begun=begun)
        else:
            merged.append(entry)
    return "[\n" + ",\n".join(json.dumps(asdict(entry)) for entry in merged) + "\n]\n"


def stacks(folders: Sequence[Path], number: Mapping[str, int], order: Sequence[int]) -> Stacks:
    """The stacks of all shards, in the order of one sweep.

    number: run id → the run's number in the whole sweep. order: these numbers, as a sweep lists its jobs.
    """
    rank = {run: index for index, run in enumerate(order)}
    found = [stack_file.read(folder) for folder in folders]

    def place(run_ids: Sequence[str]) -> int:
        # A run that has not begun has no number yet.
        return min(rank[number[run_id]] if run_id in number else len(rank) for run_id in run_ids)

    return Stacks(
        tuple(sorted((job for each in found for job in each.jobs), key=lambda job: place(job.runs))),
        tuple(trial for each in found for trial in each.trials),
        tuple(sorted((fall for each in found for fall in each.shortfalls), key=lambda fall: place(fall.run_ids))),
    )
