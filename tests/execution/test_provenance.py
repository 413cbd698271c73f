"""What a table must admit: an arm made of two networks, a question that was changed once its answer was known."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from runner import registry
from runner.storage.contrast_history import Entry, judged
from tests.monitoring.tracking import accumulated

Bnbench = Callable[..., Result]

PLUGIN = """\
from runner import network
from torch import nn

@network("own")
def own(*, norm: str = "none"):
    layers = [nn.BatchNorm1d(WIDTH)] if norm == "batch" else []
    return nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH), *layers, nn.ReLU(), nn.Linear(WIDTH, 10))

WIDTH = 8
"""
EDITED = PLUGIN.replace("WIDTH = 8", "WIDTH = 9")
CONFIG = """\
name: own
plugins: [own.py]
contrast: {axis: network.norm, baseline: none, smallest_effect: 0.005}
fixed: {network: own, dataset: digits, device: cpu, epochs: 1, batch_size: 250}
grid: {network.norm: [none, batch], seed: [0, 1, 2]}
"""
pytestmark = pytest.mark.usefixtures("undrawn")

OPTIONS = ("--executor", "inline", "-q")
MIXED = "3 of 6 runs of each arm used another own.py (code_digests in runs.csv)."
MORE = ("--set", "grid.seed=[0, 1, 2, 3, 4, 5]", "--allow-changed")


def edit(folder: Path, text: str = EDITED) -> None:
    """Change the plugin, and forget the one that this process has imported."""
    (folder / "own.py").write_text(text)
    registry.network.pop("own")
    for name in [name for name in sys.modules if name.startswith("bnbench_plugin_")]:
        del sys.modules[name]


def line(text: str) -> str:
    """A text whose lines were folded, in one line."""
    return " ".join(text.split())


@pytest.fixture
def run(bnbench: Bnbench, tmp_path: Path) -> Callable[..., str]:
    """Train the sweep in the test's folder. Returns what a person sees."""
    (tmp_path / "own.py").write_text(PLUGIN)
    (tmp_path / "own.yaml").write_text(CONFIG)

    def trained(*options: str) -> str:
        done = bnbench("run", tmp_path / "own.yaml", "--out", tmp_path, *OPTIONS, *options)
        assert done.exit_code == 0, done.stderr
        return line(done.stdout)

    return trained


def test_an_arm_of_two_networks_is_admitted_wherever_it_is_shown(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path
) -> None:
    assert "own.py" not in run()
    edit(tmp_path)
    shown, folder = run("--resume", *MORE), tmp_path / "own"
    assert MIXED in shown
    assert "no (code differs in 3 of 6 pairs)" in shown
    runs = pd.read_csv(folder / "runs.csv")
    one, two = runs["code_digests"].unique()
    assert re.fullmatch(r"bnbench [0-9a-f]{12}; own\.py [0-9a-f]{12}", one)
    assert one.partition("; ")[0] == two.partition("; ")[0]
    assert list(runs.groupby(["network.norm", "code_digests"]).size()) == [3, 3, 3, 3]
    for style in ("csv", "json", "md", "latex"):
        exported = bnbench("compare", folder, "--format", style).stdout
        assert MIXED in exported.replace("\\", ""), style
    record = json.loads(bnbench("compare", folder, "--format", "json").stdout)[1]
    assert (record["paired"], record["code_differs"], record["test"]) == ("no", 3, "Welch")
    bnbench("report", folder)
    headline = (folder / "report.html").read_text().partition("<dl")[0]
    assert MIXED in headline
    assert MIXED in bnbench("export", folder, "--format", "tutorial").stderr


def test_tensorboard_is_told(bnbench: Bnbench, run: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    run()
    edit(tmp_path)
    run("--resume", *MORE)
    assert bnbench("export", tmp_path / "own", "--format", "tensorboard").exit_code == 0
    tensors = accumulated(tmp_path / "own/tensorboard/run-001").Tensors("warnings/text_summary")
    assert tensors[0].tensor_proto.string_val[0].decode().splitlines()[0] == MIXED


def test_pairs_of_two_networks_are_not_proven(bnbench: Bnbench, run: Callable[..., str], tmp_path: Path) -> None:
    run("--set", "grid.seed=[0]")
    runs = tmp_path / "own/runs.csv"
    runs.write_text("".join(runs.read_text().splitlines(keepends=True)[:-1]))  # the batch arm's run was cut off
    edit(tmp_path, PLUGIN + "# since\n")
    shown = run("--resume", "--set", "grid.seed=[0, 1]", "--allow-changed")
    assert "no (code differs in 1 of 2 pairs)" in shown
    assert "2 of 2 runs of batch" not in shown
    assert "1 of 2 runs of none used another own.py (code_digests in runs.csv)." in shown
    assert "Not paired (batch: code differs in 1 of 2 pairs)" in shown
    assert "runs that are not proven pairs" in bnbench_page(bnbench, tmp_path / "own")


def bnbench_page(bnbench: Bnbench, folder: Path) -> str:
    assert bnbench("report", folder).exit_code == 0
    return (folder / "report.html").read_text()


def test_another_bnbench_is_named(run: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    monkeypatch.setattr("runner.training.environment.code", lambda: "f" * 64)
    assert "3 of 6 runs of each arm used another bnbench (code_digests in runs.csv)." in run("--resume", *MORE)


def test_every_version_of_a_plugin_is_kept(run: Callable[..., str], tmp_path: Path) -> None:
    run()
    edit(tmp_path)
    run("--resume", *MORE)
    kept = sorted((tmp_path / "own/plugins").iterdir())
    assert sorted(path.read_text() for path in kept) == sorted([PLUGIN, EDITED])
    digests = pd.read_csv(tmp_path / "own/runs.csv")["code_digests"].unique()
    assert sorted(f"own-{each[-12:]}.py" for each in digests) == [path.name for path in kept]
    # Starting over keeps no source of the runs that are deleted.
    run("--fresh")
    assert [path.read_text() for path in (tmp_path / "own/plugins").iterdir()] == [EDITED]


def test_a_plugin_that_is_too_large_is_not_kept_and_named(run: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PLUGIN + "# x\n" * 2**18)
    run()
    assert not (tmp_path / "own/plugins").exists()
    size = (tmp_path / "own.py").stat().st_size
    assert f"own.py is not kept in plugins/: it has {size:,} bytes" in (tmp_path / "own/run.log").read_text()


CHANGED = (
    r"The smallest effect was changed from 0\.5 pp to 0\.1 pp on \d{4}-\d\d-\d\d \d\d:\d\d UTC, "
    r"after 6 runs had ended; it was not fixed beforehand\."
)


def test_an_effect_that_was_chosen_after_the_results_is_named(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path
) -> None:
    assert "with a smallest effect of 0.5 pp (fixed beforehand)" in run()
    shown = run("--resume", "--set", "contrast.smallest_effect=0.001")
    assert re.search(CHANGED, shown)
    assert "with a smallest effect of 0.1 pp (not fixed beforehand)" in shown
    for style in ("csv", "json", "md", "latex"):
        exported = bnbench("compare", tmp_path / "own", "--format", style).stdout
        assert re.search(CHANGED, exported.replace("\\", "")), style
    headline = bnbench_page(bnbench, tmp_path / "own").partition("<dl")[0]
    assert re.search(CHANGED, headline)
    assert "(fixed beforehand)" not in headline
    # Changing it back does not make it good.
    assert "changed from 0.1 pp to 0.5 pp" in run("--resume")


def test_a_run_that_has_begun_counts_although_none_has_ended(run: Callable[..., str], tmp_path: Path) -> None:
    run()
    (tmp_path / "own/runs.csv").write_text((tmp_path / "own/runs.csv").read_text().partition("\n")[0] + "\n")
    shown = run("--resume", "--set", "contrast.smallest_effect=0.001")
    assert "UTC, after 6 runs had begun; it was not fixed beforehand." in shown


ADDED = (
    r"6 runs were added on \d{4}-\d\d-\d\d \d\d:\d\d UTC, after 6 runs had ended: p and intervals take no account of "
    r"looking in between \(run --until-decided does\)\."
)
TWICE = ("--set", "grid.seed=[0, 1, 2, 3, 4, 5]")


def test_runs_that_were_added_after_the_results_are_named(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path
) -> None:
    assert "added" not in run()
    shown = run("--resume", *TWICE)
    assert re.search(ADDED, shown)
    assert "with a smallest effect of 0.5 pp (fixed beforehand)" in shown
    for style in ("csv", "json", "md", "latex"):
        exported = bnbench("compare", tmp_path / "own", "--format", style).stdout
        assert re.search(ADDED, exported.replace("\\", "").replace("{}", "")), style
    assert re.search(ADDED, bnbench_page(bnbench, tmp_path / "own").partition("<dl")[0])
    record = (tmp_path / "own/contrast.json").read_text()
    assert [entry["runs_planned"] for entry in json.loads(record)] == [6, 12]
    run("--resume", *TWICE)
    assert (tmp_path / "own/contrast.json").read_text() == record


def test_runs_that_were_added_before_any_had_begun_are_no_offence(run: Callable[..., str], tmp_path: Path) -> None:
    run()
    for name in ("runs.csv", "metrics.csv"):
        table = tmp_path / "own" / name
        table.write_text(table.read_text().partition("\n")[0] + "\n")
    assert "were added" not in run("--resume", *TWICE)


def test_runs_that_were_added_to_an_older_folder_are_named(run: Callable[..., str], tmp_path: Path) -> None:
    """Its record has no counts of the runs that had begun and were planned."""
    run()
    record = tmp_path / "own/contrast.json"
    (entry,) = json.loads(record.read_text())
    for name in ("runs_begun", "runs_planned"):
        del entry[name]
    record.write_text(json.dumps([entry]))
    assert "(fixed beforehand)" in run("--resume")
    assert json.loads(record.read_text()) == [entry]
    assert re.search(ADDED, run("--resume", *TWICE))


def test_a_baseline_that_was_chosen_after_the_results_is_named(run: Callable[..., str]) -> None:
    run()
    shown = run("--resume", "--set", "contrast.baseline=batch")
    assert "The baseline was changed from none to batch on " in shown
    assert "UTC, after 6 runs had ended; it was not fixed beforehand." in shown


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--baseline", "batch"), "The baseline batch was chosen for this table; that of the config is none."),
        (("--where", "seed=1"), "Only the runs with seed 1 count: they were chosen for this table."),
    ],
)
def test_what_is_chosen_for_one_table_is_named(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path, options: tuple[str, str], sentence: str
) -> None:
    assert sentence not in run()
    shown = line(bnbench("compare", tmp_path / "own", *options).stdout)
    assert sentence in shown
    # The smallest effect is another fact, and it was fixed.
    assert "0.5 pp (fixed beforehand)" in shown
    (record, *_) = json.loads(bnbench("compare", tmp_path / "own", *options, "--format", "json").stdout)
    assert sentence in record["warnings"]


def test_an_edited_config_in_the_folder_is_named(bnbench: Bnbench, run: Callable[..., str], tmp_path: Path) -> None:
    run()
    config = tmp_path / "own/config.yaml"
    config.write_text(config.read_text().replace("smallest_effect: 0.005", "smallest_effect: 0.001"))
    shown = line(bnbench("compare", tmp_path / "own").stdout)
    what = "The smallest effect was changed from 0.5 pp to 0.1 pp"
    assert f"{what} in config.yaml, after 6 runs had ended; it was not fixed beforehand." in shown
    assert "(fixed beforehand)" not in shown
    assert f"{what} on " in line(bnbench("resume", tmp_path / "own", *OPTIONS).stdout)


def test_a_change_before_any_run_has_ended_is_no_offence(run: Callable[..., str], tmp_path: Path) -> None:
    run()
    for name in ("runs.csv", "metrics.csv"):
        table = tmp_path / "own" / name
        table.write_text(table.read_text().partition("\n")[0] + "\n")
    shown = run("--resume", "--set", "contrast.smallest_effect=0.001")
    assert "was changed" not in shown
    assert "with a smallest effect of 0.1 pp (fixed beforehand)" in shown
    assert len(json.loads((tmp_path / "own/contrast.json").read_text())) == 2


@pytest.mark.parametrize("text", [None, "5", "[[]]", '[{"axis": 1}]', "[" * 100_000])
def test_a_folder_without_a_record_does_not_say_beforehand(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path, text: str | None
) -> None:
    """Of an older bnbench, or damaged."""
    run()
    record = tmp_path / "own/contrast.json"
    if text is None:
        record.unlink()
    else:
        record.write_text(text)
    unknown = "with a smallest effect of 0.5 pp (it is not known when this was fixed)"
    assert unknown in line(bnbench("compare", tmp_path / "own").stdout)
    # The record that a resume begins is too late.
    assert unknown in run("--resume")
    assert "changed from 0.5 pp to 0.1 pp" in run("--resume", "--set", "contrast.smallest_effect=0.001")


def test_only_what_was_replaced_after_runs_had_ended_counts() -> None:
    first, second, third = (
        Entry("network.norm", "none", effect, f"2026-11-26T14:0{minute}:00+00:00", ended)
        for minute, (effect, ended) in enumerate([(0.1, 0), (0.2, 0), (0.3, 5)])
    )
    contrast = {"axis": "network.norm", "baseline": "none"}
    here = Entry.of({**contrast, "smallest_effect": 0.2}, runs_ended=5)
    assert judged([first, second], here) == ("beforehand", [])
    here = Entry.of({**contrast, "smallest_effect": 0.3}, runs_ended=9)
    fixed, (sentence,) = judged([first, second, third], here)
    assert fixed == "changed"
    assert sentence == (
        "The smallest effect was changed from 20 pp to 30 pp on 2026-11-26 14:02 UTC, after 5 runs had ended; "
        "it was not fixed beforehand."
    )


def test_pooled_folders_of_two_versions_are_admitted(bnbench: Bnbench, run: Callable[..., str], tmp_path: Path) -> None:
    run()
    shutil.copytree(tmp_path / "own", tmp_path / "first/own")
    edit(tmp_path)
    run("--fresh", "--set", "grid.seed=[3, 4, 5]")
    pooled = bnbench("compare", tmp_path / "first/own", tmp_path / "own", "--group-by", "network.norm")
    assert MIXED in line(pooled.stdout)


SMALL = "The last batch of each epoch is small: 2 images instead of 416. Readings right after it are erratic"


def test_a_small_last_batch_is_warned_of(bnbench: Bnbench, run: Callable[..., str], tmp_path: Path) -> None:
    """The digits have 1500 training images, of which a sixth is held out: 1250."""
    size = ("--set", "fixed.batch_size=416")
    validated = bnbench("validate", tmp_path / "own.yaml", *size).stdout
    assert SMALL in validated
    assert SMALL in run(*size)
    assert SMALL in bnbench_page(bnbench, tmp_path / "own")
    assert SMALL not in bnbench("validate", tmp_path / "own.yaml", *size, "--set", "fixed.drop_last=true").stdout
    assert "small" not in bnbench("validate", tmp_path / "own.yaml").stdout


def test_seeds_that_share_their_order_and_their_test_images_are_noted(
    bnbench: Bnbench, run: Callable[..., str], tmp_path: Path
) -> None:
    order, images = "All seeds share one batch order (shuffle: false)", "All runs are tested on the same images"
    shown = run("--set", "fixed.shuffle=false")
    assert order in shown
    assert images not in shown
    assert images in line(bnbench("compare", tmp_path / "own", "--metric", "test_accuracy").stdout)
