"""The executor `ray` in a real cluster on this machine, whose nodes pretend to have GPUs; one has no torch at last."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import venv
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from runner.analysis import calibration
from tests.cluster import Cluster, autoscaled, cluster
from tests.execution.test_executors import tables

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="needs the extra: pip install 'bnbench[ray]'"
)

PLUGIN = """\
import json, os, time
from pathlib import Path

from torch import nn
from runner import network

SEEN = Path({seen!r})

@network("seen")
def seen(*, end: str = ""):
    \"\"\"A network that writes down where it is made.\"\"\"
    began, gpu = time.time(), os.environ.get("CUDA_VISIBLE_DEVICES")
    if end == "late":
        time.sleep(1000)
    if end == "meets another":
        SEEN.with_name(f"gpu-{{gpu}}-{{os.getpid()}}").touch()
        while len(list(SEEN.parent.glob(f"gpu-{{gpu}}-*"))) < 2:
            assert time.time() < began + 60, "no other job is on this GPU"
            time.sleep(0.05)
    time.sleep(0.4)
    line = {{"gpu": gpu, "began": began, "ended": time.time()}}
    with SEEN.open("a") as file:
        file.write(json.dumps(line) + "\\n")
    if end == "error":
        raise ArithmeticError("as it was asked")
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
"""


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has every package of this one except torch."""
    folder = tmp_path_factory.mktemp("python")
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    ours = Path(importlib.util.find_spec("ray").origin).parent.parent  # type: ignore[union-attr,arg-type]
    for entry in ours.iterdir():
        if not entry.name.startswith(("torch", "functorch", "pip", "__editable__", "bnbench", "_virtualenv")):
            (packages / entry.name).symlink_to(entry)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    with cluster(0) as found:
        found.add(cpus=4, gpus=2)
        found.wait(2)
        yield found


def python(nodes: Cluster, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process that trains in the cluster. It has the cluster's token, and no variable that names its address."""
    options = ("--out", str(folder), "--executor", "ray", "--ray-address", nodes.environment["RAY_ADDRESS"])
    return subprocess.run(
        [sys.executable, *arguments, *options],
        cwd=ROOT,
        env={name: value for name, value in nodes.environment.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        check=False,
    )


def run(nodes: Cluster, folder: Path, config: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "seen.py").write_text(PLUGIN.format(seen=str(folder / "seen.jsonl")))
    (folder / "seen.yaml").write_text(json.dumps({"name": "seen", "plugins": ["seen.py"], **config}))
    return python(nodes, folder, "-m", "runner.interfaces.cli.main", "run", str(folder / "seen.yaml"), *options)


def at_a_time(folder: Path) -> dict[str, int]:
    """The most jobs that were on each GPU at the same time."""
    lines = [json.loads(line) for line in (folder / "seen.jsonl").read_text().splitlines()]
    most = Counter[str]()
    for gpu in {line["gpu"] for line in lines}:
        moments = [(line["began"], 1) for line in lines if line["gpu"] == gpu]
        moments += [(line["ended"], -1) for line in lines if line["gpu"] == gpu]
        jobs = 0
        for _, change in sorted(moments):
            jobs += change
            most[gpu] = max(most[gpu], jobs)
    return dict(most)


FIXED = {"network": "seen", "dataset": "digits", "train_samples": 100, "device": "cpu", "epochs": 1}


def test_two_jobs_that_ask_for_half_a_gpu_share_it(nodes: Cluster, tmp_path: Path) -> None:
    """Each job waits for the other one, however long the nodes take to start them."""
    config = {"fixed": FIXED | {"network.end": "meets another"}, "grid": {"seed": {"range": 4}}}
    done = run(nodes, tmp_path, config | {"resources": {"num_gpus": 0.5}})
    assert done.returncode == 0, done.stderr
    assert at_a_time(tmp_path) == {"0": 2, "1": 2}


def test_a_stack_has_a_gpu_to_itself(nodes: Cluster, tmp_path: Path) -> None:
    config = {"fixed": FIXED, "grid": {"seed": {"range": 8}}, "resources": {"num_gpus": 1}}
    done = run(nodes, tmp_path, config, "--stack", "2")
    assert done.returncode == 0, done.stderr
    runs = pd.read_csv(tmp_path / "seen/runs.csv", keep_default_na=False)
    assert all("stack of 2" in each for each in runs["trained_as"]), list(runs["trained_as"])
    assert set(at_a_time(tmp_path).values()) == {1}


def test_fail_fast_stops_the_cluster_too(nodes: Cluster, tmp_path: Path) -> None:
    ends = {"network.end": ["error", "late"], "seed": [0]}
    done = run(nodes, tmp_path, {"fixed": FIXED, "grid": ends, "resources": {"num_cpus": 1}}, "--fail-fast")
    assert done.returncode == 1, done.stderr
    assert "stopped at the first failure; bnbench resume" in done.stderr
    assert list(pd.read_csv(tmp_path / "seen/runs.csv")["status"]) == ["failed"]


OWN_CLAIM = """\
from functools import partial
from pathlib import Path

from runner import Claim, claim
from runner.analysis.claims.accuracy import final


@claim("own_claim")
def own_claim(name):
    config = Path(__file__).with_name("own.yaml")
    measure = partial(final, arm="batch")
    return Claim(name, "It is higher.", "my notes", config, "accuracy", "pp", 1, 1, measure, {"smoke": []})
"""
CONFIG = {
    "contrast": {"axis": "network.norm", "baseline": "none"},
    "fixed": FIXED | {"network": "notebook_mlp"},
    "grid": {"network.norm": ["none", "batch"], "seed": {"range": 2}},
}
TWICE = """\
import sys
from pathlib import Path
from runner.analysis import calibration
from runner.interfaces.cli.main import main

folder, claim, *options = sys.argv[1:]
calibration.CONFIGS, calibration.SWEEPS, calibration.PLANTED = Path(folder), calibration.SWEEPS[:2], {}
for others in (["--out", folder + "/inline", "--executor", "inline"], options):
    for command in (["claims", "--plugin", claim, "run", "own_claim"], ["calibrate"]):
        try:
            main([*command, *others, "-q"])
        except SystemExit as end:
            print("exit code", end.code, flush=True)
"""
"""Two commands in their own process, and again in the cluster. The calibration has two sweeps of few runs."""


def test_claims_and_the_calibration_say_what_they_say_without_a_cluster(nodes: Cluster, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN_CLAIM)
    (tmp_path / "own.yaml").write_text(json.dumps({"name": "own"} | CONFIG))
    for file in calibration.CONFIGS.glob("*_seed*.yaml"):
        text = file.read_text(encoding="utf-8").replace("epochs: 2", "epochs: 1").replace("{range: 10}", "{range: 2}")
        text = text.replace("[0, 2000]", "[0, 10]").replace("[2000, 4000]", "[2000, 2010]")
        (tmp_path / file.name).write_text(text, encoding="utf-8")
    done = python(nodes, tmp_path / "ray", "-c", TWICE, str(tmp_path), str(tmp_path / "own.py"), "--workers", "1")
    lines = done.stdout.splitlines()
    expected = lines[: len(lines) // 2]
    assert [line.split()[:2] for line in expected if line.startswith("own_claim ")], done.stderr
    assert [line for line in expected if line.startswith("exit code")] == ["exit code 0"] * 2, done.stdout
    assert lines == expected * 2
    for sweep in ("smoke/own", "calibration/same_seed", "calibration/different_seeds"):
        inline, there = tmp_path / "inline" / sweep, tmp_path / "ray" / sweep
        assert tables(there) == tables(inline)
        assert tables(there)
        assert "trains on " not in (inline / "run.log").read_text()
        assert "trains on " in (there / "run.log").read_text()


def test_jobs_share_pretended_gpus_a_node_without_torch_is_refused_by_name_and_bad_runs_are_rows(
    nodes: Cluster, without_torch: Path, tmp_path: Path
) -> None:
    nodes.add(cpus=4, gpus=2, python=without_torch)
    nodes.wait(3)
    ends = {"network.end": ["", "error", "late"], "seed": {"range": 2}}
    config = {"fixed": FIXED, "grid": ends, "resources": {"num_gpus": 0.5}}
    done = run(nodes, tmp_path, config, "--run-timeout", "5")
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("torch is not installed; other nodes train its jobs") == 1, done.stderr
    log = (tmp_path / "seen/run.log").read_text()
    assert "torch is not installed; other nodes train its jobs" in log
    runs = pd.read_csv(tmp_path / "seen/runs.csv", keep_default_na=False)
    assert Counter(zip(runs["network.end"], runs["status"], strict=True)) == {
        ("", "ok"): 2,
        ("error", "failed"): 2,
        ("late", "timeout"): 2,
    }
    # Each job sees one GPU, and at most two jobs share it.
    shared = at_a_time(tmp_path)
    assert shared.keys() <= {"0", "1"}
    assert max(shared.values()) <= 2


def test_the_autoscaler_is_asked_for_room_and_the_request_ends_with_the_sweep(tmp_path: Path) -> None:
    with autoscaled(tmp_path, most=2) as found:
        config = {"fixed": FIXED, "grid": {"seed": {"range": 4}}}
        done = run(found, tmp_path, config)
        assert done.returncode == 0, done.stderr
        assert "no node of the cluster has them" in done.stderr.splitlines()[0]
        assert list(pd.read_csv(tmp_path / "seen/runs.csv")["status"]) == ["ok"] * 4
        asked = requests(found)
        assert max(asked) == 4
        assert asked[-1] == 0


def requests(found: Cluster) -> list[int]:
    """How many CPUs the autoscaler was asked for, each time that it has looked."""
    code = "import ray; ray.init(log_to_driver=False); print(ray._private.worker._global_node.get_logs_dir_path())"
    told = subprocess.run(
        [sys.executable, "-c", code], env=found.environment, capture_output=True, text=True, check=True
    )
    log = Path(told.stdout.splitlines()[-1], "monitor.log").read_text()
    asked = re.findall(r"From request_resources:\n (?:\{'CPU': 1\}: (\d+) from|\(none\))", log)
    return [int(each or 0) for each in asked]
