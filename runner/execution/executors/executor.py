"""Where jobs run. An executor takes jobs and yields their events; it writes nothing.

`inline` trains in this process (debugger-friendly, the reference for the others); `process` in spawned workers that
survive one another's death. `ray` (`ray_cluster`) has such a worker in every slot of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runner.config.jobs import Job
from runner.execution.executors.ray_cluster import Cluster
from runner.storage.checkpoints import NEVER, Every
from runner.storage.rows import Event


@dataclass(frozen=True)
class Context:
    """What a job needs besides itself.

    The data folder, the plugin files, how many workers there may be, how often to checkpoint and what to go on from,
    and the seconds a run may take (of a stack, each of its runs), and whether results carry the final weights. For a
    `cluster`, also where checkpoints come to lie and whether its nodes read them there; on a node, the `packages` to
    import and the `versions` it must have.
    """

    root: Path
    plugins: tuple[str, ...] = ()
    workers: int = 1
    every: Every = NEVER
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    run_timeout: float | None = None
    save_weights: bool = False
    packages: tuple[str, ...] = ()
    versions: Mapping[str, Any] | None = None
    checkpoint_folder: Path = Path()
    checkpoints_shared: bool = False
    cluster: Cluster | None = None


Executor = Callable[[Sequence[Job], Context], Iterator[Event]]
