"""Which runs train together. This is decided once, before the first job, and recorded in stacks.json."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from runner.config.jobs import Job, StackMode, Trial, job_of, most_per_stack, stack_groups, stackable, stacks_of
from runner.config.run_spec import RunSpec
from runner.errors import strict
from runner.execution.executors.executor import Context, Executor
from runner.storage import stacks as stack_file
from runner.storage.folder import LOG
from runner.storage.rows import PLURAL, EventBatch, RunResult, Shortfall, StackPlan
from runner.storage.stacks import PlannedJob, Stacks

Group = tuple[RunSpec, ...]


def decide(
    runs: Sequence[RunSpec],
    mode: StackMode,
    count: int,
    executor: Executor,
    context: Context,
    stacks: Stacks,
    fixed: Collection[Collection[str]] = (),
) -> Stacks:
    """Add jobs for these runs to a sweep's stacks. `count` is the number of runs of the whole sweep.

    `fixed` are stacks that must not be put together in another way, as run ids: a shard has the whole sweep's stacks.

    Groups of runs that may form stacks are tried by the executor. Runs that cannot train together train alone; then
    there is a shortfall that says why.
    """
    most = most_per_stack(count, mode, context.workers)
    groups = stack_groups(runs, mode, context.checkpoints)
    tried = [group for group in groups if stackable(group[0], mode) and (min(most, len(group)) > 1 or group[0].on_cuda)]
    workers = context.workers if len(tried) == 1 else 1
    trials = [
        Trial(group, min(most, len(group)), isinstance(mode, int), workers, sharing(group[0].device, context))
        for group in tried
    ]
    plans = dict(_try(trials, executor, replace(context, checkpoints={})))
    jobs, shortfalls = [], []
    for group in groups:
        plan = plans.get(group[0].run_id)
        if plan is None:
            jobs += [PlannedJob((run.run_id,)) for run in group]
        elif plan.obstacle:
            for part in _cut(group, most, fixed):
                shortfall = _shortfall(part, plan.obstacle)
                shortfalls.append(shortfall)
                jobs += [PlannedJob(alone, note=shortfall.note) for alone in shortfall.parts]
        else:
            parts = _cut(group, plan.size, fixed)
            if plan.room is not None and plan.room < min(most, len(group)):
                run_ids = tuple(run.run_id for run in group)
                instead = f"as {len(parts)} stacks of at most {plan.size}"
                reason = f"the memory has room for {plan.room} run{'s' if plan.room > 1 else ''} at a time"
                shortfalls.append(Shortfall(run_ids, "one stack", instead, reason))
            jobs += [PlannedJob(tuple(run.run_id for run in part), plan.form) for part in parts]
    measured = [plan for plan in plans.values() if plan.seconds]
    return Stacks((*stacks.jobs, *jobs), (*stacks.trials, *measured), (*stacks.shortfalls, *shortfalls))


def _cut(group: Group, size: int, fixed: Collection[Collection[str]]) -> list[Group]:
    """The stacks of a group, each of at most `size` runs."""
    ids = {run.run_id: run for run in group}
    whole = [tuple(ids[run_id] for run_id in stack if run_id in ids) for stack in fixed] or [group]
    return [part for stack in whole if stack for part in stacks_of(stack, size)]


def sharing(device: str, context: Context) -> int:
    """How many workers share the memory of a GPU; 1 for a CPU, where `free_memory` leaves room for other workers."""
    if not device.startswith("cuda"):
        return 1
    if context.ray:
        return math.ceil(1 / (context.ray.cluster.num_gpus or 1))
    return math.ceil(context.workers / max(1, len(context.gpus)))


def _try(trials: Sequence[Trial], executor: Executor, context: Context) -> Iterator[tuple[str, StackPlan]]:
    """The plan of each trial, by the id of its first run."""
    trial_of = {run_id: trial for trial in trials for run_id in trial.run_ids}
    for event in executor(trials, context) if trials else ():
        for single in event.events if isinstance(event, EventBatch) else (event,):
            if isinstance(single, StackPlan):
                yield single.run_ids[0], single
            elif isinstance(single, RunResult):
                # The worker died or took too long. It reports every run of the trial.
                if strict():
                    raise RuntimeError(f"a trial failed: {single.error}")
                run_ids = trial_of[single.run_id].run_ids
                yield run_ids[0], StackPlan(run_ids, obstacle=f"the trial failed: {single.error}")


def _shortfall(stack: Group, obstacle: str) -> Shortfall:
    planned, instead = ("one stack", "alone") if len(stack) > 1 else ("a CUDA graph", "step by step")
    run_ids = tuple(run.run_id for run in stack)
    return Shortfall(run_ids, planned, instead, obstacle, parts=tuple((run_id,) for run_id in run_ids))


def jobs_to_train(stacks: Stacks, runs: Mapping[str, RunSpec], finished: Collection[str]) -> list[Job]:
    """The jobs that have a run which is not finished. A stack trains all of its runs, the finished ones, too."""
    jobs = []
    for planned in stacks.jobs:
        members = tuple(runs[run_id] for run_id in planned.runs if run_id in runs)
        if any(run.run_id not in finished for run in members):
            left = len(planned.runs) - len(members)
            note = f"{left} of its runs left the config" if left else planned.note
            jobs.append(job_of(members, planned.form, note))
    return jobs


def shortfalls(folder: Path) -> Iterator[str]:
    """A line for each reason for which runs of a sweep did not train as planned."""
    alike: dict[tuple[str, str, str], list[Shortfall]] = defaultdict(list)
    for each in stack_file.read(folder).shortfalls:
        alike[each.planned, each.instead, each.reason].append(each)
    for same in alike.values():
        run_ids = tuple(run_id for each in same for run_id in each.run_ids)
        planned = same[0].planned if len(same) == 1 else PLURAL[same[0].planned].format(len(same))
        more = f" (more in {folder / LOG})" if any(each.traceback for each in same) else ""
        yield f"{replace(same[0], run_ids=run_ids, planned=planned)}{more}"
