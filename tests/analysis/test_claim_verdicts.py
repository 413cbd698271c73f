"""How claims are judged, on differences and tables written by hand; and that nothing is dropped in silence."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from click.testing import Result
from statsmodels.stats.multitest import multipletests

from runner import registry
from runner.analysis.claims.claim import Claim, Finding, chosen_claims, sweeps_of
from runner.analysis.claims.convergence import steps_to_target
from runner.analysis.claims.judge import evaluate, finding, judge
from runner.analysis.stats.values import Values
from runner.errors import UserError
from runner.reporting.claim_table import render
from runner.storage.results import Results

NAN = float("nan")
CLEAR = [-3.0, -3.2, -2.9, -3.1, -3.0, -2.8, -3.3, -3.0, -3.1, -2.9]


def nothing(_: Results) -> Values:
    raise AssertionError("not measured")


def a_claim(
    claimed: Literal[1, -1, "equivalence"] = -1, *, effect: float = 1.0, measure: Any = nothing, path: str = "s.yaml"
) -> Claim:
    return Claim(
        name="mine",
        sentence="It is less.",
        source="somebody",
        config=Path(path),
        metric="a difference",
        unit="pp",
        smallest_effect=effect,
        claimed=claimed,
        measure=measure,
        budgets={},
    )


def judged(claim: Claim, differences: Sequence[Any], *others: Finding) -> Finding:
    return judge([finding(claim, np.array(differences)), *others])[0]


@pytest.mark.parametrize(
    ("claimed", "differences", "word"),
    [
        (-1, CLEAR, "SUPPORTED"),
        (1, CLEAR, "REFUTED"),
        ("equivalence", CLEAR, "REFUTED"),
        ("equivalence", [-d for d in CLEAR], "REFUTED"),
        ("equivalence", [d / 100 for d in CLEAR], "EQUIVALENT"),
        (-1, [d / 100 for d in CLEAR], "EQUIVALENT"),
        (-1, [0.0] * 10, "EQUIVALENT"),
        (-1, [-9.0, 8.0, -7.0, 6.0, -5.0, 9.0, -3.0, 2.0], "INCONCLUSIVE"),
        ("equivalence", [-9.0, 8.0, -7.0, 6.0, -5.0, 9.0, -3.0, 2.0], "INCONCLUSIVE"),
        (-1, CLEAR[:5], "INCONCLUSIVE"),  # five pairs can never reject
        (-1, CLEAR[:1], "INCONCLUSIVE"),
    ],
)
def test_the_verdict_follows_the_rule(claimed: Any, differences: list[float], word: str) -> None:
    assert judged(a_claim(claimed), differences).word == word


def test_p_is_adjusted_over_the_claims_evaluated_together() -> None:
    generator = np.random.default_rng(3)
    samples = [generator.normal(shift, 1, 10) for shift in (0.2, 0.8, 1.0, 1.2, 3.0)]
    findings = judge([finding(a_claim(1), sample) for sample in samples])
    raw = [f.p for f in findings]
    assert [f.p_adjusted for f in findings] == pytest.approx(multipletests(raw, method="holm")[1].tolist())
    alone = judge([finding(a_claim(1), samples[2])])[0]
    assert alone.p_adjusted == alone.p
    assert findings[2].p_adjusted is not None
    assert alone.p is not None
    assert findings[2].p_adjusted > alone.p


def test_what_was_not_run_does_not_count_in_the_family() -> None:
    absent = Finding(a_claim())
    both = judge([finding(a_claim(), np.array(CLEAR)), absent])
    assert both[0].p_adjusted == both[0].p
    assert both[1].word == "NOT RUN"


def test_equivalence_is_judged_after_holm() -> None:
    margin = a_claim("equivalence", effect=1.0)
    near = np.random.default_rng(0).normal(size=12)
    near = 0.515 + 0.8 * (near - near.mean()) / near.std(ddof=1)
    alone = judged(margin, near)
    assert alone.p_equivalence is not None
    assert 0.0125 < alone.p_equivalence < 0.05
    assert alone.word == "EQUIVALENT"
    among = judged(margin, near, *(finding(margin, near + shift) for shift in (0.001, 0.002, 0.003)))
    assert among.word == "INCONCLUSIVE"
    assert among.verdict is not None
    assert among.verdict.seeds is not None
    assert among.verdict.seeds > 12


def test_the_worst_of_several_decides() -> None:
    small, large = np.array(CLEAR) / 100, np.array(CLEAR)
    assert judged(a_claim("equivalence"), [small, small]).word == "EQUIVALENT"
    both = judged(a_claim("equivalence"), [small, large])
    assert both.word == "REFUTED"
    assert both.interval is not None
    assert both.interval.estimate == pytest.approx(-3.03)
    assert both.p == pytest.approx(2 * 2 / 2**10)  # two were looked at
    with pytest.raises(ValueError, match="only one can decide"):
        finding(a_claim(), np.array([small, large]))


def test_a_missing_seed_is_counted_as_missing() -> None:
    found = judged(a_claim(), [*CLEAR[:-1], NAN])
    assert (found.n, found.planned) == (9, 10)
    assert found.differences[-1] is None
    assert json.loads(found.record["differences"])[-1] is None


def test_no_seed_at_all_is_inconclusive_not_equivalent() -> None:
    for claimed in (1, -1, "equivalence"):
        found = judged(a_claim(claimed), [NAN] * 4)
        assert (found.word, found.n, found.planned) == ("INCONCLUSIVE", 0, 4)
        assert found.p is None


def test_every_format_shows_every_finding() -> None:
    findings = judge(
        [finding(a_claim(), np.array(CLEAR)), finding(a_claim("equivalence"), np.full(4, NAN)), Finding(a_claim())]
    )
    rows = list(csv.DictReader(io.StringIO(render(findings, "csv"))))
    assert [row["verdict"] for row in rows] == ["SUPPORTED", "INCONCLUSIVE", "NOT RUN"]
    assert [row["claimed"] for row in rows] == ["-", "=", "-"]
    assert [row["n"] for row in rows] == ["10", "0", "0"]
    assert [row["verdict"] for row in json.loads(render(findings, "json"))] == [row["verdict"] for row in rows]
    for style in ("table", "md"):
        text = render(findings, style)
        assert text.count("mine") == 3
        assert "0/4" in text


# Through the real pipeline


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
        "    return Claim(name, 'It is higher.', 'me', Path(__file__).parent / 'own.yaml', 'accuracy', 'pp', 1, 1,\n"
        "        partial(final, arm='batch'), {'smoke': ['grid.seed={range: 2}', 'fixed.epochs=1']})\n"
    )
    with registry.claim.temporary():
        registry.claim.clear()
        yield file


Bnbench = Callable[..., Result]


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


def test_failed_and_missing_runs_are_in_the_verdict(plugin: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert bnbench("claims", "--plugin", plugin, "run", "--out", out, "--executor", "inline", "-q").exit_code == 0
    (claim,) = chosen_claims()
    runs = out / "smoke/own/runs.csv"
    lines = runs.read_text().splitlines()
    runs.write_text("\n".join([lines[0], lines[1].replace(",ok,", ",failed,", 1), *lines[2:4], ""]))
    (found,) = evaluate([claim], out / "smoke")
    assert (found.n, found.planned, found.word) == (0, 2, "INCONCLUSIVE")
    assert set(found.notes) == {"1 of 4 runs failed", "1 of 4 runs missing"}
    assert "1 of 4 runs failed" in render([found], "table")
    runs.write_text("\n".join([lines[0], *(line.replace(",ok,", ",failed,", 1) for line in lines[1:]), ""]))
    (found,) = evaluate([claim], out / "smoke")
    assert (found.n, found.planned, found.word) == (0, 2, "INCONCLUSIVE")


def test_pairs_that_are_not_proven_give_no_verdict(plugin: Path, bnbench: Bnbench, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ("--out", out, "--budget", "full", "--executor", "inline", "-q")
    assert bnbench("claims", "--plugin", plugin, "run", *arguments).exit_code == 0
    (claim,) = chosen_claims()
    claim = replace(claim, smallest_effect=0.001)
    (found,) = evaluate([claim], out / "full")
    assert found.word in ("SUPPORTED", "REFUTED")
    runs = out / "full/own/runs.csv"
    *others, last = runs.read_text().splitlines()
    (digest,) = {row["weights_hash"] for row in list(csv.DictReader(io.StringIO(runs.read_text())))[-1:]}
    runs.write_text("\n".join([*others, last.replace(digest, "0123"), ""]))
    (found,) = evaluate([claim], out / "full")
    assert found.word == "INCONCLUSIVE"
    assert any(note.startswith("not proven") for note in found.notes)


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
    claim = a_claim(measure=partial(steps_to_target, arm="batch", target=1.0), path="target.yaml")
    (found,) = evaluate([claim], tmp_path)
    assert (found.n, found.planned, found.word) == (0, 2, "INCONCLUSIVE")
