"""Shards: parts of a sweep that are trained apart, in any order. Merged, they are the sweep."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner.config.reader import from_mapping
from runner.config.shards import shares
from runner.config.sweep import Shard
from runner.execution.merge import TIMES
from runner.interfaces.cli.shards import from_array
from runner.storage import stacks
from runner.storage.folder import sole_writer

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]

PLUGIN = """\
from runner import network
from torch import nn

def layers(*norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 8), *norm, nn.ReLU(), nn.Linear(8, 10))

@network("plain")
def plain():
    return layers()

@network("normed")
def normed():
    return layers(nn.BatchNorm1d(8))

@network("raises")
def raises():
    raise RuntimeError("no such layer")
"""

CONFIG = """\
name: pair
plugins: [own.py]
contrast: {axis: network, baseline: plain, smallest_effect: 0.01}
fixed: {dataset: digits, train_samples: 200, batch_size: 100, device: cpu}
grids:
  - {network: [plain, normed], seed: {range: 16}, epochs: [1]}
  - {network: [plain, normed], seed: [0, 1], epochs: [2], lr: [1.0e+30]}
  - {network: [raises], seed: [0, 1], epochs: [3]}
exclude: [{seed: 3, network: normed}]
save_predictions: true
"""

STACKED = (
    *("--stack", "2", "--set", "exclude=[]", "--set", "save_predictions=false"),
    *("--set", "grids.0.seed={range: 26}", "--set", "grids.1.seed={range: 4}"),
)
"""Stacks of two runs that stay together with those of the other arm, in 16 parts."""

INLINE = ("--executor", "inline", "-q")

KILLED = """\
import json, os, signal, sys
from runner.interfaces.cli.main import main
from runner.storage import files
from runner.training import train  # so that not each process imports it

append = files.append
for left, arguments in json.loads(sys.argv[1]):
    process = os.fork()
    if process == 0:
        def last(*arguments, **options):
            global left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            append(*arguments, **options)
        files.append = last
        main(arguments)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
"""
"""Commands of which each is killed when it has appended so many times to files."""

KILLED_MERGES = """\
import os, signal, sys
from itertools import count
from pathlib import Path
from runner.execution.merge import merge
from runner.storage import results  # so that not each process imports it

shards = sorted(Path(sys.argv[1]).glob("pair.shard-*"))
for steps in count():
    process = os.fork()
    if process == 0:
        def dying(name, left=[steps]):
            whole = getattr(os, name)
            def step(*arguments, **options):
                left[0] -= 1
                if left[0] < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return whole(*arguments, **options)
            setattr(os, name, step)
        for name in ("fsync", "replace", "rename", "rmdir"):
            dying(name)
        merge(shards)
        os._exit(0)
    if os.waitpid(process, 0)[1] == 0:
        break
print(steps)
"""
"""A merge that is killed at its first write, then at its second one, and so on, until it is not."""


@pytest.fixture
def config(write: Write) -> Path:
    write("own.py", PLUGIN)
    return write("pair.yaml", CONFIG)


def train(bnbench: Bnbench, config: Path, out: Path, shard: str, *options: object) -> Result:
    done = bnbench("run", config, "--out", out, "--shard", shard, *INLINE, *options)
    assert done.exit_code in (0, 1), done.stderr
    return done


def content(folder: Path) -> dict[str, object]:
    """All files of a sweep, but for times."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.suffix == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            found[name] = table.drop(columns=list(TIMES), errors="ignore").to_csv()
        elif name == "contrast.json":
            found[name] = [{**entry, "time": ""} for entry in json.loads(path.read_text())]
        elif name == "environment.json":
            environment = json.loads(path.read_text())
            assert environment.pop("folder") == str(folder)
            found[name] = {**environment, "git": None}  # somebody may commit while this test runs
        elif name == "stacks.json":
            found[name] = stacks.read(folder).jobs, stacks.read(folder).shortfalls
        elif name == "run.log":
            # The order in which runs end, and what was timed, are times, too.
            found[name] = sorted({line for line in path.read_text().splitlines() if re.match(r"run \d|network ", line)})
        elif path.is_file() and name != ".lock":
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize("options", [(), STACKED], ids=["plain", "stacked"])
def test_shards_in_any_order_some_killed_give_the_bytes_of_one_sweep(
    bnbench: Bnbench, config: Path, tmp_path: Path, options: tuple[object, ...]
) -> None:
    one = bnbench("run", config, "--out", tmp_path / "one", *INLINE, *options)
    assert one.exit_code == 1, one.stderr
    expected, shown = content(tmp_path / "one/pair"), bnbench("compare", tmp_path / "one/pair").stdout
    assert set(pd.read_csv(tmp_path / "one/pair/runs.csv")["status"]) == {"ok", "diverged", "failed"}
    orders = {of: random.Random(of).sample(range(1, of + 1), of) for of in (1, 4, 16)}
    # Of each shard that is killed: how many times it has appended to a file by then.
    killed = {1: {}, 4: {orders[4][0]: 2}, 16: {orders[16][0]: 0, orders[16][1]: 1}}
    kill(
        [
            (left, ["run", config, *INLINE, *options, "--out", tmp_path / str(of), "--shard", f"{number}/{of}"])
            for of in killed
            for number, left in killed[of].items()
        ]
    )
    for of, order in orders.items():
        out = tmp_path / str(of)
        for number in order:
            if number not in killed[of]:
                train(bnbench, config, out, f"{number}/{of}", *options)
        if killed[of]:
            assert bnbench("merge", *out.glob("*.shard-*")).exit_code == 2
        for number in killed[of]:
            assert bnbench("resume", out / f"pair.shard-{number}-of-{of}", *INLINE).exit_code in (0, 1)
        train(bnbench, config, out, f"{order[-1]}/{of}", "--resume", *options)
        done = bnbench("merge", *out.glob("*.shard-*"))
        assert done.exit_code == 0, done.stderr
        assert content(out / "pair") == expected
        assert done.stdout == shown
    # The merged sweep is one like any other: there is nothing left to train.
    assert bnbench("resume", tmp_path / "4/pair", *INLINE).stdout == shown
    assert content(tmp_path / "4/pair") == expected


def kill(commands: Sequence[tuple[int, Sequence[object]]]) -> None:
    arguments = json.dumps(commands, default=str)
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], check=False, capture_output=True, text=True)
    assert done.stdout.split() == ["-9"] * len(commands), done.stderr


def test_a_shard_without_the_baseline_has_a_plan(bnbench: Bnbench, config: Path) -> None:
    plans = [bnbench("run", config, "--dry-run", "--shard", f"{number}/20").stdout for number in range(1, 21)]
    assert any("arm plain" not in plan and "network=raises" in plan for plan in plans)
    assert all(re.search("^run 1 ", plan, re.MULTILINE) for plan in plans)


def test_a_shard_or_a_merge_that_is_repeated_changes_nothing(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    short = ("--set", "save_predictions=false")
    for number in (1, 2):
        train(bnbench, config, tmp_path, f"{number}/2", *short)
    shards = sorted(tmp_path.glob("*.shard-*"))
    before = [content(shard) for shard in shards]
    again = bnbench("run", config, "--out", tmp_path, "--shard", "2/2", *INLINE, *short)
    assert (again.exit_code, "already holds this sweep" in again.stderr) == (2, True)
    train(bnbench, config, tmp_path, "2/2", "--resume", *short)
    assert [content(shard) for shard in shards] == before
    # A merge that is killed is repeated.
    done = subprocess.run([sys.executable, "-c", KILLED_MERGES, tmp_path], check=False, capture_output=True, text=True)
    assert int(done.stdout) > 10, done.stderr
    merged = content(tmp_path / "pair")
    assert bnbench("merge", *shards, shards[0]).exit_code == 0
    assert content(tmp_path / "pair") == merged
    assert {path.name for path in tmp_path.iterdir() if path.is_dir() and path.name != "__pycache__"} == {
        "pair",
        *(shard.name for shard in shards),
    }
    # Other results are not overwritten.
    (tmp_path / "pair/runs.csv").write_text((tmp_path / "pair/runs.csv").read_text().replace("diverged", "ok"))
    refused = bnbench("merge", *shards)
    assert (refused.exit_code, "holds other results than these shards" in refused.stderr) == (2, True)


def test_shards_that_do_not_fit_together_are_refused(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    for number in (1, 3):
        train(bnbench, config, tmp_path / "a", f"{number}/4")
    first, third = sorted((tmp_path / "a").iterdir())

    def refused(*folders: Path) -> str:
        done = bnbench("merge", *folders)
        assert done.exit_code == 2, done.stdout
        assert not (tmp_path / "a/pair").exists()
        return done.stderr

    lines = refused(first, third).splitlines()
    assert [line.partition(":")[0] for line in lines] == ["pair.shard-2-of-4", "pair.shard-4-of-4"]
    assert re.search(r"missing: run 4 \(network=plain seed=3 epochs=1\), .* and \d more; this shard", lines[0])
    copied = shutil.copytree(first, tmp_path / "b" / first.name)
    assert "the same shard twice" in refused(first, third, copied)
    other = shutil.copytree(third, tmp_path / "c" / third.name)
    text = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(text.replace("smallest_effect: 0.01", "smallest_effect: 0.02"))
    assert "shards of two configs; these differ: contrast" in refused(first, other)
    (other / "config.yaml").write_text(text.replace("of: 4", "of: 3"))
    assert "not shared out in the same way: 4 shards, no fixed stacks; 3 shards" in refused(first, other)
    (other / "config.yaml").write_text(text)
    for entry, wrong in (("code", "f" * 64), ("data", {"digits": {"digits": "f" * 64}}), ("plugins", {})):
        environment = json.loads((third / "environment.json").read_text())
        (other / "environment.json").write_text(json.dumps({**environment, entry: wrong}))
        assert f"not trained in the same way: {entry}" in refused(first, other, *_rest(bnbench, config, tmp_path))
    with sole_writer(third):
        assert "another process is writing this shard" in refused(first, third)
    assert "no shard; allowed: folders that 'bnbench run --shard' wrote" in refused(_whole(bnbench, config, tmp_path))


def _rest(bnbench: Bnbench, config: Path, folder: Path) -> list[Path]:
    """The shards that the folder a/ lacks."""
    out = folder / "rest"
    if not out.exists():
        for number in (2, 4):
            train(bnbench, config, out, f"{number}/4")
    return list(out.iterdir())


def _whole(bnbench: Bnbench, config: Path, folder: Path) -> Path:
    assert bnbench("run", config, "--out", folder / "d", *INLINE).exit_code == 1
    return folder / "d/pair"


def test_other_machines_are_recorded(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        train(bnbench, config, tmp_path, f"{number}/2")
    path = tmp_path / "pair.shard-2-of-2/environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "cpu": "another"}))
    assert bnbench("merge", *tmp_path.glob("*.shard-*")).exit_code == 0
    (change,) = json.loads((tmp_path / "pair/environment.json").read_text())["changed"]
    assert change["cpu"]["to"] == "another"


def test_unmerged_shards_are_read_together(bnbench: Bnbench, config: Path, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        done = train(bnbench, config, tmp_path, f"{number}/3")
        assert done.stdout == ""  # a part of the runs is no answer
    shards = sorted(tmp_path.glob("*.shard-*"))
    shown = [bnbench("compare", *shards).stdout, bnbench("compare", *shards, "--over", "seeds,images").stdout]
    page = bnbench("report", *shards)
    assert page.stdout.strip() == str(tmp_path / "pair-report.html"), page.stderr
    seen = bnbench("watch", "--once", *shards)
    assert seen.stdout.startswith("pair, 3 of 3 shards: 37 runs: 31 ok, 4 diverged, 2 failed; ")
    assert f"finished; bnbench merge {tmp_path}/pair.shard-*-of-3 puts the shards together" in seen.stdout
    assert bnbench("watch", *shards).stdout.splitlines()[1:] == seen.stdout.splitlines()[1:]
    two = bnbench("compare", *shards[:2], "--format", "csv").stdout
    assert two != bnbench("compare", *shards, "--format", "csv").stdout
    assert not (tmp_path / "pair").exists()
    bnbench("merge", *shards)
    merged = tmp_path / "pair"
    assert shown == [bnbench("compare", merged).stdout, bnbench("compare", merged, "--over", "seeds,images").stdout]
    assert bnbench("report", merged, shards[0]).exit_code == 2


def test_pairs_and_stacks_stay_together_and_shares_are_even() -> None:
    networks = ["no_batch_norm", "batch_norm"]
    values = {
        "contrast": {"axis": "network", "baseline": "no_batch_norm"},
        "fixed": {"dataset": "digits"},
        "grids": [
            {"network": networks, "seed": {"range": 40}, "batch_size": [50, 500], "epochs": [4]},
            {"network": networks, "seed": {"range": 7}, "epochs": [9]},
        ],
    }
    sweep = from_mapping(values)
    for shard in (Shard(number=1, of=7), Shard(number=1, of=7, stack=4)):
        found = shares(sweep.resolved, shard)
        assert sorted(position for share in found for position in share) == list(range(len(sweep.runs)))
        where = {position: number for number, share in enumerate(found) for position in share}
        pairs: dict[object, set[int]] = {}
        for position, run in enumerate(sweep.runs):
            pairs.setdefault((run.seed, run.batch_size, run.epochs), set()).add(where[position])
        assert all(len(numbers) == 1 for numbers in pairs.values())
        kinds = [
            Counter((sweep.runs[place].batch_size, sweep.runs[place].epochs) for place in share) for share in found
        ]
        for kind in kinds[0]:
            counts = [each[kind] for each in kinds]
            assert max(counts) - min(counts) <= 2 * (shard.stack or 1)
    # Later versions of bnbench must share out a sweep that has begun as this one does.
    assert shares(sweep.resolved, Shard(number=1, of=7))[2][:6] == KNOWN


KNOWN = [4, 9, 18, 23, 32, 37]


@pytest.mark.parametrize(
    ("environment", "text", "expected"),
    [
        ({"LSB_JOBINDEX": "5", "LSB_JOBINDEX_END": "9", "LSB_JOBINDEX_STEP": "2"}, "auto", (3, 5)),
        ({"SLURM_ARRAY_TASK_ID": "7"}, "auto/16", (7, 16)),
        ({"PBS_ARRAYID": "2"}, "auto/4", (2, 4)),
    ],
)
def test_a_task_of_an_array_knows_its_shard(environment: dict[str, str], text: str, expected: object) -> None:
    assert from_array(environment, text) == expected


SLURM = {f"SLURM_ARRAY_TASK_{name}": value for name, value in (("MIN", "3"), ("MAX", "9"), ("STEP", "1"))}


@pytest.mark.parametrize(
    ("environment", "options", "message"),
    [
        ({}, ["--shard", "auto"], "this is no task of an array job"),
        ({"LSB_JOBINDEX": "0"}, ["--shard", "auto"], "this is no task of an array job"),
        ({"PBS_ARRAY_INDEX": "2"}, ["--shard", "auto"], "use --shard auto/N"),
        ({"PBS_ARRAY_INDEX": "two"}, ["--shard", "auto/2"], "$PBS_ARRAY_INDEX is 'two', and no number"),
        ({"PBS_ARRAY_INDEX": "0"}, ["--shard", "auto/2"], "there is no shard 0 of 2; allowed: 1 to 2"),
        (
            {**SLURM, "SLURM_ARRAY_TASK_ID": "9", "SLURM_ARRAY_TASK_COUNT": "2"},
            ["--shard", "auto"],
            "leaves out numbers",
        ),
        ({}, ["--shard", "3"], "allowed: K/N, such as 3/16, or auto, or auto/N"),
        ({}, ["--shard", "17/16"], "there is no shard 17 of 16; allowed: 1 to 16"),
        ({}, ["--shard", "1/40"], "pairs stay together, so there are 20"),
        ({}, ["--shard", "1/2", "--until-decided"], "has no shards"),
    ],
)
def test_a_shard_that_is_none_is_one_message(
    bnbench: Bnbench,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    options: list[str],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    arms = ["--set", "grids=[{network: [plain, normed], seed: {range: 16}}]", "--set", "exclude=[]"]
    done = bnbench("run", config, "--out", tmp_path / "out", *options, *(arms if "--until-decided" in options else ()))
    assert done.exit_code == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()
