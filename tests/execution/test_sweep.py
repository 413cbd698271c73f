"""The main job through the command line, on the embedded digits."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

Bnbench = Callable[..., Result]

Write = Callable[[str, str], Path]

CONFIG = """\
name: pair
contrast: {axis: network, baseline: no_batch_norm}
fixed: {dataset: digits, train_samples: 500, batch_size: 100, epochs: 2, device: cpu}
grid:
  network: [no_batch_norm, batch_norm]
  seed: {range: 3}
"""

PLUGIN = """\
from runner import network
from torch import nn

@network("mine")
def mine(*, width: int = 8):
    return nn.Sequential(nn.Flatten(), nn.Linear(784, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 10))

@network("raises")
def raises():
    raise RuntimeError("no such layer")

@network("wrong_shape")
def wrong_shape():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 9))
"""

TIMING = ["epoch_duration", "run_duration"]


def table(folder: Path, name: str = "metrics.csv") -> pd.DataFrame:
    return pd.read_csv(folder / name)


def untimed(folder: Path) -> str:
    """metrics.csv and runs.csv byte for byte, but for the timing columns."""
    columns = pd.read_csv(folder / "metrics.csv", dtype=str, keep_default_na=False).drop(columns=TIMING)
    return str(columns.to_csv()) + (folder / "runs.csv").read_text()


def run(bnbench: Bnbench, config: Path, out: Path, *options: object) -> Result:
    return bnbench("run", config, "--out", out, "--executor", "inline", "-q", *options)


def test_the_main_job_from_a_file_to_a_paired_comparison(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    done = run(bnbench, write("pair.yaml", CONFIG), tmp_path)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"batch_norm +3 .* pp +[0-9.]+ +yes\n", done.stdout), done.stdout
    metrics, runs = table(tmp_path / "pair"), table(tmp_path / "pair", "runs.csv")
    assert len(metrics) == 3 * 2 * 2
    assert list(metrics.run) == sorted(metrics.run)
    assert list(runs.status) == ["ok"] * 6
    assert list(runs.parameters) == [32_998] * 3 + [33_250] * 3
    assert list(runs.weights_hash[:3]) == list(runs.weights_hash[3:])
    assert list(runs.batches_hash[:3]) == list(runs.batches_hash[3:])
    assert runs.test_accuracy.between(0.2, 1).all()
    environment = json.loads((tmp_path / "pair/environment.json").read_text())
    assert environment["packages"]["torch"]
    assert len(environment["data"]["digits"]["digits"]) == 64


def test_a_smallest_effect_goes_from_the_file_to_a_verdict(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = CONFIG.replace("no_batch_norm}", "no_batch_norm, smallest_effect: 0.3}", 1)
    done = run(bnbench, write("pair.yaml", config), tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "Verdict, with a smallest effect of 30 pp" in done.stdout.replace("\n", " ")
    compared = bnbench("compare", tmp_path / "pair", "--target", "0.1", "--format", "csv")
    rows = pd.read_csv(io.StringIO(compared.stdout))
    assert rows.verdict[1] in ("EQUIVALENT", "UNDECIDED")
    assert list(rows.followed) == [3, 3]
    assert rows.steps_to_target.between(1, table(tmp_path / "pair").step.max()).all()
    refused = bnbench("compare", tmp_path / "pair", "--target", "90")
    assert (refused.exit_code, "allowed: a fraction above 0" in refused.stderr) == (2, True)


def test_the_same_config_twice_and_the_resolved_one_give_the_same_bytes(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    config = write("pair.yaml", CONFIG)
    assert run(bnbench, config, tmp_path / "1").exit_code == 0
    assert run(bnbench, config, tmp_path / "2").exit_code == 0
    assert run(bnbench, tmp_path / "1/pair/config.yaml", tmp_path / "3").exit_code == 0
    assert untimed(tmp_path / "1/pair") == untimed(tmp_path / "2/pair") == untimed(tmp_path / "3/pair")
    assert (tmp_path / "1/pair/config.yaml").read_text() == (tmp_path / "3/pair/config.yaml").read_text()


def test_a_persons_own_network_is_compared_by_the_same_commands(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("mine.py", PLUGIN)
    config = write(
        "own.yaml",
        "plugins: [mine.py]\nfixed: {dataset: digits, epochs: 1, device: cpu}\n"
        "contrast: {axis: network, baseline: no_batch_norm}\n"
        "grid: {network: [no_batch_norm, mine], seed: [0, 1]}\n",
    )
    done = run(bnbench, config, tmp_path)
    assert done.exit_code == 0, done.stderr
    assert "no (weights differ in 2 of 2 pairs)" in done.stdout  # another network: shown, not hidden
    listed = bnbench("networks", "mine", "--plugin", tmp_path / "mine.py", "--set", "width=4")
    assert "parameters: 3,198" in listed.stdout
    again = run(bnbench, tmp_path / "own/config.yaml", tmp_path / "again")  # finds the plugin from there
    assert again.exit_code == 0, again.stderr
    assert untimed(tmp_path / "own") == untimed(tmp_path / "again/own")


def test_a_network_that_fails_is_a_row_and_the_sweep_goes_on(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write("mine.py", PLUGIN)
    config = write(
        "f.yaml",
        "plugins: [mine.py]\nfixed: {dataset: digits, epochs: 1, device: cpu}\n"
        "grid: {network: [raises, wrong_shape, batch_norm], seed: [0]}\n",
    )
    done = run(bnbench, config, tmp_path)
    assert done.exit_code == 1
    runs = table(tmp_path / "f", "runs.csv")
    assert list(runs.status) == ["failed", "failed", "ok"]
    assert "RuntimeError: no such layer" in done.stderr
    assert "the network returned [1000, 9]" in runs.error[1]
    log = (tmp_path / "f/run.log").read_text()
    assert 'raise RuntimeError("no such layer")' in log
    alone = write("g.yaml", "name: f\nfixed: {dataset: digits, epochs: 1, device: cpu, network: batch_norm, seed: 0}\n")
    assert run(bnbench, alone, tmp_path / "alone").exit_code == 0
    columns = ["train_loss", "valid_loss", "valid_accuracy"]
    assert table(tmp_path / "f")[columns].equals(table(tmp_path / "alone/f")[columns])


def test_resume_finishes_and_a_finished_sweep_is_left_alone(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("pair.yaml", CONFIG)
    assert run(bnbench, config, tmp_path / "whole").exit_code == 0
    assert run(bnbench, config, tmp_path / "part", "--set", "grid.seed=[0, 1]").exit_code == 0
    # Extending the grid trains the new runs alone, and the table is that of a sweep that had them from the start.
    started = (tmp_path / "part/pair/metrics.csv").stat().st_mtime_ns
    assert run(bnbench, config, tmp_path / "part", "--resume").exit_code == 0
    assert (tmp_path / "part/pair/metrics.csv").stat().st_mtime_ns > started
    assert untimed(tmp_path / "whole/pair") == untimed(tmp_path / "part/pair")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "whole/pair").iterdir()}
    done = run(bnbench, config, tmp_path / "whole", "--resume")
    assert done.exit_code == 0
    assert "batch_norm" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "whole/pair").iterdir()} == before


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ("lr: -1", (), "bad.yaml:3:69: lr: must be greater than 0, got -1"),
        ("optimizer: sdg", (), "did you mean 'sgd'"),
        ("network: bach_norm", (), "unknown network 'bach_norm'; did you mean 'batch_norm'?"),
        ("device: cuda:97", (), "bad.yaml:3:73: device 'cuda:97' is not on this machine; allowed here: auto, cpu"),
        ("batch_size: 1249", (), "bad.yaml:3:77: batch_size 1249 leaves a last batch of one sample of 1,250"),
        ("dataset: mnist", (), "bad.yaml:3:74: MNIST: missing t10k-images-idx3-ubyte"),
        ("epochs: 3", (), "already holds another config; --fresh starts over, --out DIR or --set name=NAME keeps both"),
        ("", ("--executor", "proces"), "unknown executor 'proces'; did you mean 'process'?"),
        ("name: ../up", (), "bad.yaml:3:71: name: must be"),
    ],
)
@pytest.mark.usefixtures("no_network")
def test_bad_input_is_one_message_exit_2_and_the_folder_as_it_was(
    bnbench: Bnbench, write: Write, tmp_path: Path, change: str, options: tuple[str, ...], message: str
) -> None:
    good = "name: s\ngrid: {seed: [0]}\nfixed: {network: batch_norm, dataset: digits, epochs: 1, device: cpu}\n"
    assert run(bnbench, write("good.yaml", good), tmp_path / "out").exit_code == 0
    before = snapshot(tmp_path / "out")
    key = change.partition(":")[0]
    fixed = {"network": "batch_norm", "dataset": "digits", "epochs": "1", "device": "cpu"}
    fixed.pop(key, None)
    given = ", ".join(f"{name}: {value}" for name, value in fixed.items())
    text = f"name: s\ngrid: {{seed: [0]}}\nfixed: {{{given}{', ' + change if change else ''}}}\n"
    if key == "name":
        text = f"grid: {{seed: [0]}}\n# here\n{'fixed: {' + given + '}':<64}\n"
        text = text.replace("\n# here", "").replace("grid", f"{change}\ngrid")
        message = "name: must be 1 to 64"
    bad = write("bad.yaml", text)
    (tmp_path / "nodata").mkdir()
    done = bnbench("run", bad, "--out", tmp_path / "out", "--data-dir", tmp_path / "nodata", "-q", *options)
    assert done.exit_code == 2
    assert re.sub(r":\d+:\d+:", ":", message) in re.sub(r":\d+:\d+:", ":", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert snapshot(tmp_path / "out") == before


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.mnist.download_and_extract_archive", refuse)


def test_a_last_batch_of_one_is_fine_without_batch_norm_or_with_drop_last(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    text = "fixed: {network: NETWORK, dataset: digits, batch_size: 1249, epochs: 1, device: cpu}\n"
    for name, network, extra in (("a", "no_batch_norm", ()), ("b", "batch_norm", ("--set", "fixed.drop_last=true"))):
        done = run(bnbench, write(f"{name}.yaml", text.replace("NETWORK", network)), tmp_path, *extra)
        assert done.exit_code == 0, done.stderr


def test_a_results_folder_that_is_no_sweeps_is_not_overwritten(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair/thesis.tex").write_text("years of work")
    done = run(bnbench, write("pair.yaml", CONFIG), tmp_path, "--fresh")
    assert done.exit_code == 2
    assert "holds thesis.tex but no config.yaml: not a sweep's folder" in done.stderr
    (tmp_path / "out").mkdir()
    (tmp_path / "out/pair").symlink_to(tmp_path)
    done = run(bnbench, tmp_path / "pair.yaml", tmp_path / "out")
    assert done.exit_code == 2
    assert "leads out of the results folder" in done.stderr


def test_plan_says_every_run_its_arm_and_its_partner(bnbench: Bnbench, write: Write) -> None:
    done = bnbench("plan", write("pair.yaml", CONFIG))
    lines = done.stdout.splitlines()
    assert lines[0] == "pair: 6 runs, 12 epochs, comparing network with no_batch_norm"
    assert lines[2] == "run 2  network=no_batch_norm  seed=1  arm no_batch_norm  paired with run 5"
    assert lines[5] == "run 5  network=batch_norm  seed=1  arm batch_norm  paired with run 2"
    assert lines[7] == "6 runs alone"
    auto = bnbench("plan", write("auto.yaml", CONFIG.replace(", device: cpu", ""))).stdout
    assert "stack auto: on CUDA, runs that differ only in seed, lr," in auto
    assert len(lines) == 8
    dry = bnbench("run", write("pair.yaml", CONFIG), "--dry-run")
    assert dry.stdout == done.stdout


def test_plan_says_what_trains_together_and_how(bnbench: Bnbench, write: Write) -> None:
    config = write(
        "norms.yaml",
        "plugins: [noisy.py]\n"
        "grids:\n"
        "  - {network: [notebook_mlp], network.norm: [none, notebook], lr: [0.1, 0.2], seed: [0, 1]}\n"
        "  - {network: [noisy], seed: [0, 1]}\n"
        "  - {network: [no_batch_norm]}\n",
    )
    config.write_text("fixed: {dataset: digits, device: cpu}\n" + config.read_text())
    write(
        "noisy.py",
        "import torch\nfrom torch import nn\nfrom runner.registry import network\n\n\n"
        "@network('noisy')\ndef noisy():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.RReLU())\n",
    )
    lines = bnbench("plan", config, "--stack", "on").stdout.splitlines()[12:]
    assert lines == [
        "stack 1: 4 runs (1, 2, 3, 4): stacked layers",
        "stack 2: 4 runs (5, 6, 7, 8): stacked layers, vmap for NotebookBatchNorm",
        lines[2],
        "1 run alone",
    ]
    assert lines[2].startswith("stack 3: 2 runs (9, 10): one at a time, because vmap: ")
    assert bnbench("plan", config, "--stack", "off").stdout.splitlines()[12:] == ["11 runs alone"]


def test_a_sweep_trained_in_stacks(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("pair.yaml", CONFIG)
    for mode in ("on", "off"):
        done = bnbench("run", config, "--out", tmp_path / mode, "--stack", mode, "--workers", 1, "--executor", "inline")
        assert done.exit_code == 0, done.stderr
    stacked, alone = (pd.read_csv(tmp_path / mode / "pair/runs.csv") for mode in ("on", "off"))
    assert set(stacked["trained_as"]) == {"stack of 3"}
    assert alone["trained_as"].str.match("alone( with kernels [a-z0-9_]+)?$").all()
    same = ["run", "status", "epochs_trained", "parameters", "weights_hash", "batches_hash", "run_id"]
    pd.testing.assert_frame_equal(stacked[same], alone[same])
    epochs = pd.read_csv(tmp_path / "on/pair/metrics.csv")
    assert (epochs["run"].tolist(), epochs["epoch"].tolist()) == ([1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6], [1, 2] * 6)


def test_an_argument_only_one_arm_has_does_not_part_pairs(bnbench: Bnbench, write: Write) -> None:
    config = write(
        "args.yaml",
        "contrast: {axis: network, baseline: no_batch_norm}\n"
        "grids:\n  - {network: [no_batch_norm], seed: [0, 1]}\n"
        "  - {network: [lenet], network.norm: [batch], seed: [0, 1]}\n",
    )
    plan = bnbench("plan", config).stdout
    assert "run 3  network=lenet  seed=0  network.norm=batch  arm lenet  paired with run 1" in plan


def test_validate_trains_nothing(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    done = bnbench("validate", write("pair.yaml", CONFIG))
    assert done.exit_code == 0
    assert "6 runs, no fault" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["pair.yaml"]


def test_export_writes_the_tutorials_files_from_a_sweep(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    assert run(bnbench, write("pair.yaml", CONFIG), tmp_path).exit_code == 0
    done = bnbench("export", tmp_path / "pair", "--format", "tutorial", "-o", tmp_path / "results")
    assert done.exit_code == 0
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == ",run,epoch,loss,accuracy,epoch duration,run duration,network,seed"
    assert len(lines) == 13
    records = json.loads((tmp_path / "results.json").read_text())
    assert [record["loss"] for record in records] == list(table(tmp_path / "pair").train_loss)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_sweep_says_how_to_resume_and_resumes_to_the_same_table(
    bnbench: Bnbench, write: Write, tmp_path: Path, number: int, code: int
) -> None:
    config = write("pair.yaml", CONFIG.replace("epochs: 2", "epochs: 8"))
    command = [
        sys.executable,
        "-m",
        "runner.interfaces.cli.main",
        "run",
        str(config),
        "--out",
        str(tmp_path / "part"),
        "--workers",
        "2",
    ]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs do not hear it
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    metrics = tmp_path / "part/pair/metrics.csv"
    while not metrics.exists() or metrics.read_text().count("\n") < 5:
        time.sleep(0.05)
        assert process.poll() is None, process.stderr and process.stderr.read()
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "bnbench resume " in errors
    assert run(bnbench, config, tmp_path / "part", "--resume").exit_code == 0
    assert run(bnbench, config, tmp_path / "whole").exit_code == 0
    assert untimed(tmp_path / "part/pair") == untimed(tmp_path / "whole/pair")


def test_tables_without_a_config_are_not_overwritten(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    (tmp_path / "pair").mkdir()
    (tmp_path / "pair/metrics.csv").write_text("precious")
    config = write("pair.yaml", CONFIG)
    for option in ((), ("--resume",), ("--fresh",)):
        assert run(bnbench, config, tmp_path, *option).exit_code == 2
    assert (tmp_path / "pair/metrics.csv").read_text() == "precious"


def test_tf32_needs_cuda(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write(
        "p.yaml", "fixed: {network: notebook_mlp, dataset: digits, device: cpu}\ngrid: {precision: [fp32, tf32]}\n"
    )
    done = bnbench("run", config, "--out", tmp_path)
    assert done.exit_code == 2
    assert "precision 'tf32' needs CUDA" in done.stderr
    assert bnbench("run", config, "--out", tmp_path, "--run-timeout", "nan").exit_code == 2


def test_resume_and_fresh_contradict_each_other(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    done = run(bnbench, write("pair.yaml", CONFIG), tmp_path, "--resume", "--fresh")
    assert done.exit_code == 2
    assert "contradict" in done.stderr


def test_a_run_whose_rows_are_gone_is_trained_again(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    config = write("pair.yaml", CONFIG)
    assert run(bnbench, config, tmp_path).exit_code == 0
    whole = untimed(tmp_path / "pair")
    metrics = tmp_path / "pair/metrics.csv"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:6]))
    assert run(bnbench, config, tmp_path, "--resume").exit_code == 0
    assert untimed(tmp_path / "pair") == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("batch_size: 1", "cannot train on one sample"),
        ("batch_size: 1251, drop_last: true", "leaves no batch of 1,250"),
    ],
)
def test_batches_that_cannot_train(bnbench: Bnbench, write: Write, tmp_path: Path, change: str, message: str) -> None:
    config = write("b.yaml", f"fixed: {{network: batch_norm, dataset: digits, device: cpu, {change}}}\n")
    done = run(bnbench, config, tmp_path)
    assert done.exit_code == 2
    assert message in done.stderr


def test_a_storage_error_is_one_line(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("x")
    done = run(bnbench, write("pair.yaml", CONFIG), tmp_path / "afile")
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "afile" in done.stderr


def test_texts_that_look_like_one_number_are_different_arms(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    write(
        "tag.py",
        "from runner import network\nfrom torch import nn\n@network('tag')\n"
        "def tag(*, tag: str | None):\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n",
    )
    config = write(
        "t.yaml",
        "plugins: [tag.py]\ncontrast: {axis: network.tag, baseline: '1.0'}\n"
        "fixed: {network: tag, dataset: digits, epochs: 1, device: cpu}\n"
        "grid: {network.tag: ['1.0', '1.00', '1', null, '=x'], seed: [0, 1]}\n",
    )
    done = run(bnbench, config, tmp_path)
    assert done.exit_code == 0, done.stderr
    records = json.loads(bnbench("compare", tmp_path / "t", "--format", "json").stdout)
    assert [(record["network.tag"], record["n"]) for record in records] == [
        *(("1.0", 2), ("1.00", 2), ("1", 2), ("null", 2), ("=x", 2)),
    ]


def test_damaged_tables_are_one_message(bnbench: Bnbench, write: Write, tmp_path: Path) -> None:
    assert run(bnbench, write("pair.yaml", CONFIG), tmp_path, "--set", "fixed.epochs=1").exit_code == 0
    folder = tmp_path / "pair"
    for name, damage in (
        ("config.yaml", "[]"),
        ("runs.csv", ""),
        ("metrics.csv", "run,epo"),
        ("metrics.csv", "\x00\x01"),
    ):
        kept = (folder / name).read_text()
        (folder / name).write_text(damage)
        done = bnbench("compare", folder)
        assert done.exit_code == 2, name
        assert len(done.stderr.splitlines()) == 1
        (folder / name).write_text(kept)
    assert bnbench("compare", folder).exit_code == 0


@pytest.mark.usefixtures("with_server")
def test_a_mended_network_is_trained_again_when_asked_and_a_changed_one_is_never_mixed(
    bnbench: Bnbench, write: Write, tmp_path: Path
) -> None:
    broken = "from runner import network\nfrom torch import nn\n@network('mine')\ndef mine(*, seven: bool):\n"
    body = "    if seven: raise NameError('y')\n    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))\n"
    write("mine.py", broken + body)
    config = write(
        "m.yaml",
        "plugins: [mine.py]\nfixed: {network: mine, dataset: digits, epochs: 1, device: cpu}\n"
        "grid: {network.seven: [false, true], seed: [0]}\n",
    )
    options = ("run", config, "--out", tmp_path, "--workers", 1, "-q")  # processes: each reads the file as it is
    assert bnbench(*options, "--executor", "inline").exit_code == 1
    kept = bnbench(*options, "--resume")
    assert kept.exit_code == 1
    assert f"bnbench resume {tmp_path / 'm'} --retry trains them again" in kept.stderr
    write("mine.py", broken + body.replace("raise NameError('y')", "pass"))
    refused = bnbench(*options, "--resume")
    assert refused.exit_code == 2
    assert "the environment has changed since this sweep began (plugins ../mine.py: " in refused.stderr
    assert bnbench(*options, "--resume", "--retry").exit_code == 2
    assert bnbench(*options, "--resume", "--retry", "--allow-changed").exit_code == 0
    assert list(table(tmp_path / "m", "runs.csv").status) == ["ok", "ok"]
    assert bnbench(*options, "--resume").exit_code == 0
    assert bnbench(*options, "--retry").exit_code == 2
