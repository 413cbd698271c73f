"""SIGKILL of the driver, of a worker, or of the whole group, at random moments of a real training sweep.

`python -m tests.faults.kills TRIALS` trains a sweep of two workers with probes, curves, weights and a tracker, kills,
resumes until it is through, and compares all tables and weights with those of a sweep left in peace, timing columns
aside. Each other trial has torch's kernels.
"""

from __future__ import annotations

import hashlib
import os
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

PLUGIN = """\
import torch
from runner import DataSet, Split
from runner.registry import dataset


@dataset("noise")
def noise(root, download):
    def split(count):
        generator = torch.Generator().manual_seed(count)
        images = torch.randint(0, 256, (count, 1, 28, 28), generator=generator, dtype=torch.uint8)
        return Split(images, torch.arange(count) % 10)

    return DataSet(split(1200), split(300))
"""
"""A data set that is there at once: every trial starts six processes."""

CONFIG = """\
name: killed
plugins: [noise.py]
fixed: {network: conv_unit, network.norm: batch, network.width: 2, dataset: noise, device: cpu, batch_size: 100,
  epochs: 20, evaluations_per_epoch: 2, probes: [norms, gradients]}
grid: {seed: {range: 4}}
save_weights: true
save_predictions: true
"""
BNBENCH = str(Path(sys.executable).parent / "bnbench")
KERNELS = ("auto", "torch")
OPTIONS = ["--quiet", "--workers", "2", "--checkpoint-every", "1", "--track", "tensorboard"]


def start(kernels: str, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [BNBENCH, *arguments, *OPTIONS, "--kernels", kernels],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def await_rows(process: subprocess.Popen[bytes], out: Path) -> None:
    metrics = out / "killed/metrics.csv"
    while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < 2):
        time.sleep(0.005)


TABLES = ("runs.csv", "metrics.csv", "curves.csv", "probes.csv")
TIMING = ["epoch_duration", "run_duration", "duration"]


def results(out: Path) -> dict[str, str]:
    """Every table without its durations, and a digest of all weights and predictions."""
    folder = out / "killed"
    kept = [*sorted(folder.glob("weights/*")), *sorted(folder.glob("predictions/*"))]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in kept))
    tables = {name: pd.read_csv(folder / name).drop(columns=TIMING, errors="ignore") for name in TABLES}
    return {name: table.to_csv() for name, table in tables.items()} | {"files": digest.hexdigest()}


def children(process: int) -> list[int]:
    try:
        return list(map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()))
    except OSError:
        return []


def workers(driver: int) -> list[int]:
    """The workers are forked by a server, which the driver has started."""
    return [worker for server in children(driver) for worker in children(server)]


def strike(process: subprocess.Popen[bytes], target: str, draw: random.Random) -> bool:
    """Kill; whether there was something to kill."""
    if process.poll() is not None:
        return False
    if target == "worker":
        found = workers(process.pid)
        if not found:
            return False
        os.kill(draw.choice(found), signal.SIGKILL)
        return True
    (os.killpg if target == "group" else os.kill)(process.pid, signal.SIGKILL)
    return True


def left_in_peace(root: Path, kernels: str) -> tuple[dict[str, str], float, float]:
    """The results of a sweep that nothing kills, and its seconds of starting up and of training."""
    began = time.monotonic()
    process = start(kernels, "run", str(root / "killed.yaml"), "--out", str(root / kernels))
    await_rows(process, root / kernels)
    start_up = time.monotonic() - began
    assert process.wait() == 0
    return results(root / kernels), start_up, time.monotonic() - began - start_up


def main(trials: int) -> int:
    draw = random.Random(0)
    hits: Counter[str] = Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "killed.yaml").write_text(CONFIG)
        (root / "noise.py").write_text(PLUGIN)
        whole = [left_in_peace(root, kernels) for kernels in KERNELS[:trials]]
        for trial in range(trials):
            out = root / "out"
            shutil.rmtree(out, ignore_errors=True)
            target, kernels = ("driver", "worker", "group")[trial % 3], KERNELS[trial % 2]
            expected, start_up, training = whole[trial % 2]
            process = start(kernels, "run", str(root / "killed.yaml"), "--out", str(out))
            if draw.random() < 0.2:
                time.sleep(draw.uniform(0, start_up))
            else:
                await_rows(process, out)
                time.sleep(draw.uniform(0, training))
            hits[target] += strike(process, target, draw)
            process.wait()
            if not (out / "killed/config.yaml").exists():  # killed before it began
                code = start(kernels, "run", str(root / "killed.yaml"), "--out", str(out)).wait()
            else:
                code = start(kernels, "resume", str(out / "killed"), "--retry", "failed").wait()
            found = results(out)
            different = [name for name in expected if found[name] != expected[name]]
            if code or different:
                failures.append(f"trial {trial}, {target}, kernels {kernels}: exit code {code}, other {different}")
                print(failures[-1], flush=True)
            if (trial + 1) % 20 == 0:
                print(f"{trial + 1} trials, {len(failures)} failures", flush=True)
    struck = ", ".join(f"{count} of the {target}" for target, count in hits.items())
    print(f"{trials} trials: SIGKILL {struck} (others came too late); {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
