"""Nodes of a Ray cluster that go away in the middle of a sweep, and the driver too.

`python -m tests.faults.nodes TRIALS` trains a sweep on two nodes. Every fifth trial kills the driver, and resumes. The
others kill the processes of a node, as a power cut does, and start another node. In every second trial, the nodes write
the checkpoints to a shared folder. The tables must be those of an undisturbed sweep, timing columns aside, with every
run ok.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pandas as pd

from tests.cluster import Cluster, Node, cluster
from tests.faults.kills import CONFIG, PLUGIN, await_rows, results

SWEEP = CONFIG.replace("epochs: 20", "epochs: 40").replace("range: 4", "range: 6")


def start(found: Cluster, *arguments: str) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "runner.interfaces.cli.main",
        *arguments,
        "--executor",
        "ray",
        "--checkpoint-every",
        "3",
        "-q",
    ]
    return subprocess.Popen(
        command,
        env=found.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def statuses(out: Path) -> set[str]:
    return set(pd.read_csv(out / "killed/runs.csv")["status"])


def trial(
    found: Cluster, nodes: list[Node], root: Path, draw: random.Random, training: float, kind: str, config: str
) -> str:
    """What the blow hit: nothing where the sweep was through before it."""
    out = root / "out"
    shutil.rmtree(out, ignore_errors=True)
    process = start(found, "run", str(root / f"{config}.yaml"), "--out", str(out))
    await_rows(process, out)
    time.sleep(draw.uniform(0, training * 0.8))
    hit = kind if process.poll() is None else "nothing"
    if kind == "driver":
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start(found, "resume", str(out / "killed"))
    else:
        nodes.pop(draw.randrange(len(nodes))).kill()
        nodes.append(found.add())
    code = process.wait()
    if code or statuses(out) != {"ok"}:
        return f"exit code {code}, {statuses(out)}"
    return hit


def main(trials: int) -> int:
    draw, hits, failures = random.Random(0), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as name, cluster(0) as found:
        root = Path(name)
        (root / "killed.yaml").write_text(SWEEP)
        (root / "shared.yaml").write_text(SWEEP + "checkpoint_dir: shared\n")
        (root / "noise.py").write_text(PLUGIN)
        nodes = []
        for number in range(2):
            nodes.append(found.add())
            found.wait(number + 2)
        process = start(found, "run", str(root / "killed.yaml"), "--out", str(root / "whole"))
        await_rows(process, root / "whole")
        began = time.monotonic()
        assert process.wait() == 0
        training = time.monotonic() - began
        expected = results(root / "whole")
        for number in range(trials):
            kind = "driver" if number % 5 == 4 else "node"
            hit = trial(found, nodes, root, draw, training, kind, "shared" if number % 2 else "killed")
            hits[hit] += 1
            if hit not in ("node", "driver", "nothing") or results(root / "out") != expected:
                failures.append(f"trial {number}, {kind}: {hit}")
                print(failures[-1], (root / "out/killed/run.log").read_text(), flush=True)
            found.wait(3)
            said = [line for line in (root / "out/killed/run.log").read_text().splitlines() if "lost" in line]
            hits["node in the middle of a run"] += bool(said)
            print(f"trial {number}: {hit}; {' '.join(said)}", flush=True)
        left = [*(root / "shared").glob("*")]
    if left:
        failures.append(f"{len(left)} folders of checkpoints are left")
        print(failures[-1])
    struck = ", ".join(f"{count} of {hit}" for hit, count in sorted(hits.items()))
    print(f"{trials} trials ({struck}): {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
