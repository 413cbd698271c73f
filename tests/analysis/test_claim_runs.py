"""Claims through the real pipeline: they are planned, frozen, trained and judged, and nothing is dropped in silence."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result

from runner import registry
from runner.analysis.claims.accuracy import final
from runner.analysis.claims.claim import Claim, DocumentBudget, chosen_claims, sweeps_of
from runner.analysis.claims.convergence import steps_to_target
from runner.analysis.claims.judge import evaluate, judge
from runner.analysis.claims.paired_values import PairedValues
from runner.analysis.claims.plan import edits, plan_of
from runner.analysis.claims.source_code import bare, in_words
from runner.errors import UserError
from runner.reporting.claim_table import render
from runner.storage.results import Results, load

Bnbench = Callable[..., Result]


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[Path]:
    """A claim of a person's own, in one file, with its config; only this one is registered."""
    (tmp_path / "own.yaml").write_text(
        "name: own\ncontrast: {axis: network.norm, baseline: none}\n"
        "fixed: {network: notebook_mlp, dataset: digits, epochs: 2, lr: 0.1, optimizer: sgd, train_samples: 200}\n"
        "grid: {network.norm: [none, batch], seed: {range: 12}}\n"
    )
    file = tmp_path / "own.py"
    file.write_text(
        "from functools import partial\nfrom pathlib import Path\n"
        "from runner import Claim, claim\nfrom runner.analysis.claims.accuracy import final\n"
        "@claim('own_claim')\n"
        "def own_claim(name):\n"
        "    return Claim(name, 'It is higher.', 'my notes', Path(__file__).parent / 'own.yaml',\n"
        "        'accuracy', 'pp', 1, 1,\n"
        "        partial(final, arm='batch'), {'smoke': ['grid.seed={range: 2}', 'fixed.epochs=1']})\n"
    )
    with registry.claim.temporary():
        registry.claim.clear()
        yield file


def test_a_claim_in_one_file_is_listed_run_resumed_and_shown(plugin: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    own = ("claims", "--plugin", plugin)
    assert "It is higher." in bnbench(*own).stdout
    command = (*own, "run", "own_claim", "--out", tmp_path / "out", "--executor", "inline", "-q")
    done = bnbench(*command)
    assert done.exit_code == 0, done.stderr
    assert "own_claim  2/2" in done.stdout
    table = tmp_path / "out/smoke/own/metrics.csv"
    before = table.read_bytes()
    assert bnbench(*command).stdout == done.stdout
    assert table.read_bytes() == before  # timings and all: nothing was trained again
    shown = bnbench(*own, "show", tmp_path / "out", "--format", "json")
    (record,) = json.loads(shown.stdout)
    assert (record["n"], record["planned"], record["sweep"]) == (2, 2, "own")


@pytest.fixture
def trained(plugin: Path, bnbench: Bnbench, tmp_path: Path) -> Path:
    """The folder of the own claim's sweep at the budget `full`."""
    arguments = ("--out", tmp_path / "out", "--budget", "full", "--executor", "inline", "-q")
    done = bnbench("claims", "--plugin", plugin, "run", *arguments)
    assert done.exit_code == 0, done.stderr
    assert "No plan was frozen" in done.stderr
    return tmp_path / "out/full"


def test_failed_and_missing_runs_are_in_the_verdict(trained: Path) -> None:
    (claim,) = chosen_claims()
    runs = trained / "own/runs.csv"
    lines = runs.read_text().splitlines()
    failed = [line.replace(",ok,", ",failed,", 1) for line in lines[1:]]
    runs.write_text("\n".join([lines[0], *failed[:12], *lines[13:24], ""]))
    (found,) = evaluate([claim], trained)
    assert (found.n, found.planned, found.word) == (0, 12, "UNDECIDED")
    assert set(found.notes) == {"12 of 24 runs failed", "1 of 24 runs missing"}
    assert "12 of 24 runs failed" in render([found], "table")
    runs.write_text("\n".join([lines[0], *failed, ""]))
    (found,) = evaluate([claim], trained)
    assert (found.n, found.planned, found.word) == (0, 12, "UNDECIDED")


def test_pairs_that_are_not_proven_give_no_verdict(trained: Path) -> None:
    (claim,) = chosen_claims()
    claim = replace(claim, smallest_effect=0.001)
    (found,) = evaluate([claim], trained)
    assert found.word in ("SUPPORTED", "REFUTED")
    runs = trained / "own/runs.csv"
    *others, last = runs.read_text().splitlines()
    (digest,) = {row["weights_hash"] for row in list(csv.DictReader(io.StringIO(runs.read_text())))[-1:]}
    runs.write_text("\n".join([*others, last.replace(digest, "0123"), ""]))
    (found,) = evaluate([claim], trained)
    assert found.word == "UNDECIDED"
    assert any(note.startswith("not proven") for note in found.notes)


def test_a_measure_that_gives_no_pairs_is_named(trained: Path) -> None:
    (claim,) = chosen_claims()

    def plain(_: Results) -> Any:
        return [0.1, 0.2]

    broken = replace(claim, measure=plain)
    with pytest.raises(UserError, match=r"claim 'own_claim': its measure gives a list, not a runner\.PairedValues"):
        evaluate([broken], trained)
    ratio = replace(claim, effect="ratio", measure=lambda _: PairedValues(np.ones(12), -np.ones(12)))
    with pytest.raises(UserError, match="a ratio needs a baseline with a mean above 0"):
        evaluate([ratio], trained)


def test_runs_at_another_budget_are_a_preview(trained: Path, plugin: Path, bnbench: Bnbench) -> None:
    (claim,) = chosen_claims()
    (found,) = evaluate([claim], trained)
    assert found.word not in ("NOT TESTED", "NOT RUN")
    (of_document,) = evaluate([replace(claim, document=DocumentBudget("its own", {"epochs": 5}))], trained)
    assert of_document.word == "NOT TESTED"
    assert "not tested as the claim's config says: epochs 2, not the budget's 5" in of_document.notes
    assert of_document.interval == found.interval  # the numbers stay
    config = plugin.parent / "own.yaml"
    config.write_text(config.read_text().replace("lr: 0.1", "lr: 0.2").replace("range: 12", "range: [12, 24]"))
    shown = bnbench("claims", "--plugin", plugin, "show", trained).stdout
    assert "own_claim: not tested as the claim's config says: lr 0.1, not 0.2; other seeds." in shown
    assert "SUPPORTED" not in shown


def spiked(results: pd.DataFrame, run: int, by: float) -> pd.DataFrame:
    """The table with another accuracy at the last reading of a run."""
    last = results.index[results["run"] == run][-1]
    return results.assign(valid_accuracy=results["valid_accuracy"].where(results.index != last, lambda a: a + by))


@pytest.mark.parametrize(("shift", "word"), [(0.0035, "SUPPORTED"), (0.0, "REFUTED")])
def test_a_spike_in_the_last_step_leaves_the_verdict(
    shift: float, word: str, bnbench: Bnbench, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = write(
        "spike.yaml",
        "contrast: {axis: network.norm, baseline: none}\n"
        "fixed: {network: notebook_mlp, dataset: digits, epochs: 1, evaluations_per_epoch: 10, train_samples: 320,\n"
        "  batch_size: 32, drop_last: true}\n"
        "grid: {network.norm: [none, batch], seed: {range: 12}}\n",
    )
    assert bnbench("run", path, "--out", tmp_path, "--executor", "inline", "-q").exit_code == 0
    results = load(tmp_path / "spike")
    generator = np.random.default_rng(4)
    curves = pd.read_csv(tmp_path / "spike/curves.csv")
    level = 0.97 + shift * (curves["run"] > 12) + generator.normal(0, 0.0005, len(curves))  # batch: runs 13 to 24
    claim = Claim("c", "s", "d", path, "m", "pp", 0.2, 1, partial(final, arm="batch"), {})
    words, means = [], []
    for by in (0.0, -0.2):
        spiked(curves.assign(valid_accuracy=level), 20, by).to_csv(tmp_path / "spike/curves.csv", index=False)
        found = judge(claim, claim.measure(results))
        words.append(found.word)
        # The last reading alone would be spoiled.
        last = spiked(curves.assign(valid_accuracy=level), 20, by).groupby("run")["valid_accuracy"].last()
        means.append(float((last[12:].to_numpy() - last[:12].to_numpy()).mean()))
    assert words == [word, word]
    assert means[1] == pytest.approx(means[0] - 0.2 / 12)


# The frozen plan


def test_an_edited_effect_is_named_and_an_edited_sentence_is_not(
    plugin: Path, bnbench: Bnbench, tmp_path: Path
) -> None:
    own = ("claims", "--plugin", plugin)
    plan, arguments = tmp_path / "out/full/plan.json", ("--out", tmp_path / "out", "--budget", "full", "-q")
    frozen = bnbench(*own, "freeze", plan)
    assert frozen.exit_code == 0, frozen.stderr
    (digest,) = re.findall(r"digest (\w{64})$", frozen.stdout)
    ran = bnbench(*own, "run", *arguments, "--executor", "inline")
    assert f"Plan {digest[:12]}, frozen" in ran.stderr
    assert "1 of 1 sweeps were begun under it" in ran.stdout
    assert ran.stdout.endswith("Nothing that decides a verdict was edited since.\n")

    def after(folder: str, *changes: tuple[str, str]) -> list[str]:
        """What is said of a copy of the plugin with these changes."""
        text = plugin.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        registry.claim.clear()
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.py").write_text(text)
        (tmp_path / folder / "own.yaml").write_bytes((tmp_path / "own.yaml").read_bytes())
        shown = (*("claims", "--plugin", tmp_path / folder / "own.py"), "show", tmp_path / "out", "--budget", "full")
        return bnbench(*shown, "--format", "csv").stderr.splitlines()

    wording = (
        ("'It is higher.'", "(\n        'It is ' # really\n        'much higher.')"),
        ("'my notes'", "'the notes of a colleague'"),
    )
    nothing = "Nothing that decides a verdict was edited since."
    assert after("wording", *wording)[-1] == nothing
    said = after("arguments", ("'pp', 1, 1,", "'pp', 0.5, 1,"), ("arm='batch'", "arm='batch', epochs=2"))
    assert [line for line in said if line.startswith("Edited")] == [
        "Edited: own_claim: the measure was final(arm='batch') when the plan was frozen, now "
        "final(arm='batch', epochs=2).",
        "Edited: own_claim: the smallest effect was 1 when the plan was frozen, now 0.5.",
        "Edited: own.py: the code was changed after the plan was frozen.",
    ]
    config = tmp_path / "own.yaml"
    config.write_text(config.read_text().replace("lr: 0.1", "lr: 0.3") + "# a comment\n")
    said = after("config")
    assert said[-1] == "Edited: sweep own: lr was 0.1 when the plan was frozen, now 0.3."
    assert not any("was not trained as planned" in line for line in said)


MEASURE = """
import helper
PP = 100
def scaled(values):
    # Shares as percentage points.
    return PP * values
def my_measure(results, arm):
    return helper.final(results, arm)
"""


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("own.py", "PP = 100", "PP = 1", True),
        ("own.py", "PP * values", "values", True),
        ("helper.py", "epochs=1", "epochs=2", True),
        ("own.py", "# Shares", "# All shares", False),
        ("helper.py", "def", "\n\n# why\ndef", False),
    ],
)
def test_an_edit_of_a_plugins_code_is_named_by_its_file(
    file: str, old: str, new: str, named: bool, plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = plugin.read_text().replace("partial(final,", "partial(my_measure,")
    plugin.write_text(MEASURE + text)
    helper = plugin.parent / "helper.py"
    helper.write_text("def final(results, arm, epochs=1):\n    return None\n")
    monkeypatch.syspath_prepend(plugin.parent)
    monkeypatch.delitem(sys.modules, "helper", raising=False)
    registry.load_plugins((str(plugin),))
    before = plan_of(chosen_claims())
    path = plugin.parent / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    sentence = f"{file}: the code was changed after the plan was frozen"
    assert edits(before, plan_of(chosen_claims())) == ([sentence] if named else [])


def test_the_plan_has_each_file_that_reads_tables_or_declares_claims() -> None:
    registry.load_plugins()
    plan = plan_of(chosen_claims())
    for file in (
        *("runner/analysis/claims/claim.py", "runner/storage/results.py", "runner/config/contrast.py"),
        *("runner/analysis/stats/verdicts.py", "experiments/claims/sweeps.py", "experiments/claims/accuracy.py"),
    ):
        edited = {**plan, "code": {**plan["code"], file: "0"}}
        assert edits(plan, edited) == [f"{file}: the code was changed after the plan was frozen"]
        del edited["code"][file]
        assert edits(plan, edited) == [f"{file}: the file is only in the plan"]


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("statistics.py", "the moving averages are poor", "running statistics are bad", False),
        ("accuracy.py", "the final results are the same", "nothing changes", False),
        ("sweeps.py", "nobody would choose a network", "no one takes one", False),
        ("sweeps.py", "the last batch of 32 images", "a batch", False),
        ("stability.py", "share=0.9", "share=0.8", True),
        ("sweeps.py", '"epochs": 30', '"epochs": 3', True),
        ("stability.py", 'unit="of the runs"', 'unit="of all runs"', True),
    ],
)
def test_the_wording_of_our_claims_is_no_edit(file: str, old: str, new: str, named: bool) -> None:
    registry.load_plugins()
    texts = {text for claim in chosen_claims() for text in claim.texts}
    source = (Path(__file__).parents[2] / "experiments/claims" / file).read_text(encoding="utf-8")
    assert old in source
    edited = bare(source.replace(old, new), {text.replace(old, new) for text in texts})
    assert (edited != bare(source, texts)) == named


def test_a_measure_is_named_with_all_its_arguments() -> None:
    def last(arm: str, results: Results, epochs: int = 1) -> PairedValues:
        return final(results, arm, epochs)

    assert in_words(partial(partial(last, "batch"), epochs=2)).endswith("last('batch', epochs=2)")
    assert in_words(partial(last, "batch")) != in_words(partial(last, "none"))
    assert in_words(partial(sorted, key=len)) == "sorted(key=len)"  # no place in memory


def test_a_plan_that_comes_late_or_is_changed_by_hand_shows(
    trained: Path, plugin: Path, bnbench: Bnbench, tmp_path: Path
) -> None:
    own, path = ("claims", "--plugin", plugin), trained / "plan.json"
    show = (*own, "show", trained)
    assert f"No plan was frozen: {path} does not exist." in bnbench(*show).stdout
    assert bnbench(*own, "freeze", path).exit_code == 0
    assert "Sweep own was not begun under this plan." in bnbench(*show).stdout
    again = bnbench(*own, "freeze", path)
    assert again.exit_code == 2
    assert "a plan is frozen here already" in again.stderr
    whole = path.read_text()
    for text, error in [
        (whole.replace('"smallest_effect": 1.0', '"smallest_effect": 0.1'), "was edited by hand"),
        ("[1]", "not a JSON object"),
        ("{", "not JSON"),
        ("{}", "not a plan that 'bnbench claims freeze' wrote"),
    ]:
        path.write_text(text)
        done = bnbench(*show)
        assert (done.exit_code, error in done.stderr) == (2, True), text[:20]
    path.unlink()
    path.symlink_to(tmp_path / "own.yaml")
    assert bnbench(*show).exit_code == 2


def test_a_comment_or_a_docstring_is_no_edit_and_a_number_is() -> None:
    code = 'def f(x: int) -> str:\n    """One."""\n    # two\n    return f"{x}#{1 + 1}"  # three\n'
    same = 'def f(x: int) -> str:\n    """Another\n    docstring."""\n\n    return f"{x}#{1 + 1}"\n'
    assert bare(code) == bare(same) == 'def f(x: int) -> str:\n    return f"{x}#{1 + 1}"'
    assert bare(code) != bare(code.replace("1 + 1", "1 + 2"))


def test_all_diverged_is_counted_with_what_it_ended_in(plugin: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = (
        (tmp_path / "own.yaml")
        .read_text()
        .replace("lr: 0.1", "batch_size: 20, lr: 1.0e+30")
        .replace("epochs: 2", "epochs: 1")
    )
    (tmp_path / "own.yaml").write_text(text)
    done = bnbench("claims", "--plugin", plugin, "run", "--out", out, "--executor", "inline", "-q")
    assert done.exit_code == 0
    (found,) = evaluate(chosen_claims(), out / "smoke")
    assert (found.n, found.planned) == (2, 2)
    assert "4 of 4 runs diverged" in found.notes


def test_two_claims_cannot_want_different_runs_of_one_sweep(plugin: Path, tmp_path: Path) -> None:
    registry.load_plugins((str(plugin),))
    (claim,) = chosen_claims()
    other = replace(claim, name="other", budgets={"smoke": ["grid.seed={range: 3}"]})
    with pytest.raises(UserError, match="another sweep 'own'"):
        sweeps_of([claim, other], "smoke")
    assert not (tmp_path / "own").exists()


def test_an_unknown_name_says_what_there_is(bnbench: Bnbench) -> None:
    done = bnbench("claims", "run", "faster_notebook_mpl")
    assert done.exit_code == 2
    assert "did you mean 'faster_notebook_mlp'" in done.stderr


def test_an_empty_folder_has_nothing_to_show(bnbench: Bnbench, tmp_path: Path) -> None:
    assert bnbench("claims", "show", tmp_path / "no").exit_code == 2
    done = bnbench("claims", "show", tmp_path)
    assert done.exit_code == 0
    assert "SUPPORTED" not in done.stdout
    assert done.stdout.count("NOT RUN") == len(registry.claim)


def test_a_target_nobody_reaches_is_no_verdict(
    bnbench: Bnbench, write: Callable[[str, str], Path], tmp_path: Path
) -> None:
    path = write(
        "target.yaml",
        "contrast: {axis: network.norm, baseline: none}\n"
        "fixed: {network: notebook_mlp, dataset: digits, epochs: 1, evaluations_per_epoch: 2, train_samples: 100}\n"
        "grid: {network.norm: [none, batch], seed: {range: 2}}\n",
    )
    assert bnbench("run", path, "--out", tmp_path, "--executor", "inline", "-q").exit_code == 0
    measure = partial(steps_to_target, arm="batch", target=1.0)
    claim = Claim("c", "s", "d", path, "m", "%", 20, -1, measure, {}, effect="ratio")
    (found,) = evaluate([claim], tmp_path)
    assert (found.n, found.planned, found.word, found.censored) == (2, 2, "UNDECIDED", (2, 2))
    assert "2 of 2 runs of the baseline did not reach the target" in found.notes
