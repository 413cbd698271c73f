"""What a comparison looks like, in every format, from hand-made rows."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import Result

from runner.analysis.metrics import of_sweep
from runner.analysis.records import ArmRow, Comparison, Difference, Divergence, Time, ToTarget
from runner.analysis.stats.intervals import Interval
from runner.analysis.stats.verdicts import Needed, Verdict
from runner.reporting.tables import Format, render

OK = {"ok": 10}
BASE = ArmRow({"lr": 0.01}, "no_batch_norm", {}, OK, 10, 0.9011, 0.0015, None)
BETTER = ArmRow(
    {"lr": 0.01}, "batch_norm", {}, OK, 10, 0.9163, 0.0012, Difference(10, 0, 0, Interval(0.0152, 0.0131, 0.0173))
)
UNPAIRED = ArmRow(
    {"lr": 0.01}, "other", {}, OK, 10, 0.8911, 0.0012, Difference(10, 10, 3, Interval(-0.01, -0.0123, -0.0077))
)
BAD = ArmRow({"lr": 0.1}, "no_batch_norm", {}, {"ok": 6, "diverged": 1, "failed": 2, "missing": 1}, 7, 0.5, 0.25, None)
ALONE = ArmRow(
    {"lr": 0.1}, "batch_norm", {}, {"ok": 1, "missing": 9}, 1, 0.75, None, Difference(1, 0, 0, Interval(0.125))
)
NEVER = ArmRow({"lr": 0.1}, "other", {}, {"failed": 10}, 0, None, None, Difference(0, 0, 0, None))
WHY = "weights differ in 10 and batches differ in 3 of 10 pairs"
ALL = (BASE, BETTER, UNPAIRED, BAD, ALONE, NEVER)


def comparison(*rows: ArmRow, **changes: Any) -> Comparison:
    facts: dict[str, Any] = {
        "metric": "valid_accuracy",
        "at": "last",
        "axis": "network",
        "baseline": "no_batch_norm",
        "cell_columns": tuple(rows[0].cell),
        "variant_columns": tuple(rows[0].variant),
        "constant": {"dataset": "fashion_mnist", "batch_size": 1000, "threads": 1},
        "rows": rows,
    }
    facts |= changes
    return Comparison(**{**facts, "metric": of_sweep(facts["metric"])})


def cells(markdown: str) -> list[list[str]]:
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_table_as_a_person_sees_it() -> None:
    # The whole text: whatever changes here should be looked at, not only asserted.
    assert render(comparison(BASE, BETTER), width=80) == (
        "valid_accuracy at the last epoch, mean ± SD over runs; difference of each\n"
        "network to the baseline no_batch_norm with its 95% interval\n"
        "\n"
        "  lr  network         n  mean ± SD (%)  difference               paired\n"
        "───────────────────────────────────────────────────────────────────────\n"
        "0.01  no_batch_norm  10   90.11 ± 0.15\n"
        "0.01  batch_norm     10   91.63 ± 0.12  +1.52 [+1.31, +1.73] pp  yes\n"
        "\n"
        "Every run: dataset fashion_mnist, batch_size 1000.\n"
    )


def test_every_kind_of_row() -> None:
    header, _, *rows = cells(render(comparison(*ALL), "md"))
    assert header == ["lr", "network", "n", "ok", "mean ± SD (%)", "difference", "pairs", "paired"]
    assert rows == [
        ["0.01", r"no\_batch\_norm", "10", "10/10", "90.11 ± 0.15", "", "", ""],
        ["0.01", r"batch\_norm", "10", "10/10", "91.63 ± 0.12", "+1.52 [+1.31, +1.73] pp", "10", "yes"],
        ["0.01", "other", "10", "10/10", "89.11 ± 0.12", "-1.00 [-1.23, -0.77] pp", "10", f"no ({WHY})"],
        ["0.1", r"no\_batch\_norm", "7", "6/10", "50.00 ± 25.00", "", "", ""],
        ["0.1", r"batch\_norm", "1", "1/10", "75.00", "+12.50 pp", "1", "yes"],
        ["0.1", "other", "0", "0/10", "–", "–", "0", "no (no pairs)"],
    ]


def test_pairs_are_counted_where_not_every_run_has_one() -> None:
    nine = ArmRow({"lr": 0.01}, "b", {}, OK, 10, 0.5, 0.1, Difference(9, 0, 0, Interval(0.1, 0.0, 0.2)))
    header, _, *rows = cells(render(comparison(BASE, BETTER, nine), "md"))
    assert header[-3:] == ["difference", "pairs", "paired"]
    assert [row[-2] for row in rows] == ["", "10", "9"]


@pytest.mark.parametrize("format", ["table", "md", "latex"])
def test_runs_that_are_not_ok_are_counted_below(format: Format) -> None:
    text = render(comparison(*ALL), format)
    assert "Of 60 runs: 1 diverged, 12 failed, 10 missing." in text
    assert "A diverged run counts with its last value, if it is finite." in text
    assert "diverged" not in render(comparison(BASE, NEVER), format)
    assert "Of " not in render(comparison(BASE, BETTER), format)


@pytest.mark.parametrize("format", ["table", "md", "latex"])
def test_what_is_not_paired_is_said_below(format: Format) -> None:
    said = f"Not paired (other: {WHY}): the interval is Welch's"
    assert said in render(comparison(BASE, BETTER, UNPAIRED), format)
    assert "Welch" not in render(comparison(BASE, BETTER), format)
    assert "Not paired (other: no pairs)." in render(comparison(BASE, NEVER), format)


@pytest.mark.parametrize("format", ["table", "md", "latex"])
@pytest.mark.parametrize(
    ("at", "said"), [("last", "at the last epoch"), ("best", "at each run's best epoch"), (5, "at epoch 5")]
)
def test_the_title_says_metric_epoch_axis_and_baseline(format: Format, at: Any, said: str) -> None:
    text = render(comparison(BASE, BETTER, metric="accuracy", baseline="none", at=at), format)
    expected = (
        f"accuracy {said}, mean ± SD over runs; difference of each network to the baseline none with its 95% interval"
    )
    for written, meant in ((r"$\pm$", "±"), (r"\%", "%"), ("\n", " ")):
        text = text.replace(written, meant)
    assert expected in text


def test_losses_and_durations_are_plain_numbers() -> None:
    loss = ArmRow({}, "b", {}, OK, 10, 0.2345, 0.00012, Difference(10, 0, 0, Interval(-0.0121, -0.0127, -0.01149)))
    tiny = ArmRow({}, "c", {}, OK, 10, 1.2345e-5, 1e-7, Difference(10, 0, 0, Interval(-1e-05, -2e-05, 0.0)))
    huge = ArmRow({}, "d", {}, OK, 10, 1.5e12, 1e11, Difference(10, 0, 0, Interval(0.0, 0.0, 0.0)))
    wide = ArmRow({}, "e", {}, OK, 10, 0.5, 0.1, Difference(10, 0, 0, Interval(1e-05, -0.0001, 0.25)))
    rows = cells(render(comparison(loss, tiny, huge, wide, metric="valid_loss"), "md"))
    assert rows[0][:4] == ["network", "n", "mean ± SD", "difference"]
    assert [row[2] for row in rows[2:]] == ["0.2345 ± 0.0001", "1.23e-05 ± 1e-07", "1.5e+12 ± 1e+11", "0.5000 ± 0.1000"]
    assert [row[3] for row in rows[2:]] == [
        "-0.0121 [-0.0127, -0.0115]",
        "-1e-05 [-2e-05, +0]",
        "+0.0000 [+0.0000, +0.0000]",
        "+0.0000 [-0.0001, +0.2500]",
    ]


def test_without_a_contrast_there_is_only_a_mean() -> None:
    rows = [ArmRow({"lr": lr}, None, {}, OK, 10, 0.5, 0.25, None) for lr in (0.01, 0.1)]
    text = render(comparison(*rows, axis=None, baseline=None), "md")
    assert text.startswith("valid\\_accuracy at the last epoch, mean ± SD over runs\n")
    assert cells(text)[0] == ["lr", "n", "mean ± SD (%)"]


def test_variants_stand_beside_their_arm_and_empty_values_are_dashes() -> None:
    base = ArmRow({}, "none", {"network.eps": None}, OK, 10, 0.5, 0.1, None)
    variant = ArmRow({}, "bn", {"network.eps": 1e-05}, OK, 10, 0.5, 0.1, Difference(10, 0, 0, Interval(0.0, 0.0, 0.0)))
    rows = cells(render(comparison(base, variant), "md"))
    assert [row[:3] for row in rows] == [
        ["network", "network.eps", "n"],
        [":---", "---:", "---:"],
        ["none", "–", "10"],
        ["bn", "1e-05", "10"],
    ]


@pytest.mark.parametrize("width", [1, 20, 60, 80, 100, 500])
def test_nothing_is_cut_at_any_width_and_what_left_is_named(width: int) -> None:
    text = render(comparison(*ALL), width=width)
    assert max(map(len, text.splitlines())) <= max(width, 40) or width == 500
    assert "…" not in text
    joined = " ".join(text.split())
    left = joined.partition("Not shown at this width: ")[2].rstrip(".").split(", ")
    assert ("89.11 ± 0.12" in joined) != ("mean ± SD (%)" in left)
    for shown in ("+1.52", "[+1.31,", "+1.73] pp", "10/10", "+12.50 pp") if width >= 60 else ("+1.52", "10/10"):
        assert shown in joined
    assert "differ in 10" in joined


def test_columns_leave_in_one_order() -> None:
    """What has left at a width has also left at each smaller width."""
    left = []
    for width in range(120, 40, -1):
        text = " ".join(render(comparison(*ALL), width=width).split())
        left.append(set(text.partition("Not shown at this width: ")[2].rstrip(".").split(", ")) - {""})
    assert all(wider <= narrower for wider, narrower in pairwise(left))
    assert (left[0], left[-1]) == (set(), {"n", "mean ± SD (%)", "pairs", "paired"})


def test_a_narrow_terminal_gets_a_narrow_table() -> None:
    rows = (BASE, BETTER, UNPAIRED)
    wide, narrow = (render(comparison(*rows), width=width) for width in (140, 80))
    assert f"no ({WHY})\n" in wide
    assert max(map(len, wide.splitlines())) > 80
    assert max(map(len, narrow.splitlines())) <= 80
    assert "-1.00 [-1.23, -0.77] pp  no\n" in narrow


def test_the_width_is_columns_or_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = (BASE, BETTER, UNPAIRED)
    monkeypatch.setenv("COLUMNS", "80")
    assert render(comparison(*rows)) == render(comparison(*rows), width=80)
    for unusable in ("", "0", "wide"):
        monkeypatch.setenv("COLUMNS", unusable)
        assert f"no ({WHY})\n" in render(comparison(*rows))


def test_cells_are_set_apart_unless_sorting_mixed_them() -> None:
    def gaps(*rows: ArmRow) -> int:
        table = render(comparison(*rows)).split("─\n")[1].partition("\n\nNo best lr")[0].partition("\n\nEvery run")[0]
        return table.count("\n\n")

    other = ArmRow({"lr": 0.1}, "batch_norm", {}, OK, 10, 0.75, 0.1, BETTER.difference)
    first = ArmRow({"lr": 0.1}, "no_batch_norm", {}, OK, 10, 0.75, 0.1, None)
    assert gaps(BASE, BETTER, first, other) == 1
    assert gaps(BASE, other, first, BETTER) == 0
    assert gaps(BASE, first) == 0


def test_color_only_when_asked_and_by_the_sign_that_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in render(comparison(*ALL))
    monkeypatch.delenv("FORCE_COLOR")
    monkeypatch.setenv("NO_COLOR", "1")  # the caller has decided
    green, red, yellow = "\x1b[32m", "\x1b[31m", "\x1b[33m"
    accuracy = render(comparison(*ALL), color=True)
    assert f"{green}+1.52" in accuracy
    assert f"{red}-1.00" in accuracy
    assert f"{yellow}no (weights" in accuracy
    loss = render(comparison(*ALL, metric="valid_loss"), color=True)
    assert f"{red}+0.0152" in loss
    assert f"{green}-0.0100" in loss
    open_question = ArmRow({}, "b", {}, OK, 10, 0.5, 0.1, Difference(10, 0, 0, Interval(0.1, -0.1, 0.3)))
    assert green not in render(comparison(open_question), color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", accuracy).split() == render(comparison(*ALL)).split()


def test_csv_and_json_parse_back_to_the_records_in_full_precision() -> None:
    third = ArmRow(
        {"lr": 1 / 3}, "batch_norm", {}, OK, 10, 0.1 + 0.2, 1e-17, Difference(10, 0, 0, Interval(2 / 3, 0.0, 1))
    )
    made = comparison(*ALL, third)
    assert json.loads(render(made, "json")) == made.records
    parsed = list(csv.DictReader(io.StringIO(render(made, "csv"))))
    assert parsed == [
        {name: "" if value is None else str(value) for name, value in record.items()} for record in made.records
    ]
    assert parsed[0]["pairs"] == ""
    assert (parsed[1]["pairs"], parsed[1]["interval"], parsed[1]["paired"]) == ("10", "paired t", "yes")
    assert (parsed[2]["interval"], parsed[2]["paired"], parsed[2]["batches_differ"]) == ("Welch", "no", "3")
    assert (parsed[4]["difference"], parsed[4]["interval"]) == ("0.125", "")
    assert (parsed[6]["lr"], parsed[6]["mean"], parsed[6]["sd"]) == (
        "0.3333333333333333",
        "0.30000000000000004",
        "1e-17",
    )


HOSTILE = r"a|b_c*d`e<i>\f&g%h$i#j{k}~l^m [bold]n[/bold] :smile: [1, 2]"


def test_hostile_names_come_back_from_every_format() -> None:
    row = ArmRow({"lr": HOSTILE}, HOSTILE, {}, OK, 10, 0.5, 0.1, None)
    made = comparison(row, baseline=HOSTILE)
    assert next(csv.DictReader(io.StringIO(render(made, "csv"))))["network"] == HOSTILE
    assert json.loads(render(made, "json"))[0]["network"] == HOSTILE
    assert render(made).count(HOSTILE) == 3  # title, cell, arm: no markup, no emoji
    markdown = cells(render(made, "md"))[2]
    assert len(markdown) == 6
    assert re.sub(r"\\(.)", r"\1", markdown[1]) == HOSTILE
    assert not re.search(r"(?<!\\)[|_*`<]", markdown[1])


def test_latex_is_escaped_booktabs() -> None:
    row = ArmRow({"lr": "[1, 2]"}, HOSTILE, {}, OK, 10, 0.5, 0.1, None)
    lines = render(comparison(row, BETTER, UNPAIRED, baseline="x"), "latex").splitlines()
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", r"\midrule", r"\bottomrule"]
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    name = r"a\textbar{}b\_c*d`e\textless{}i\textgreater{}\textbackslash{}f\&g\%h\$i\#j\{k\}\textasciitilde{}l"
    # A row must not begin with a bare bracket: the line before ends in \\, which takes it for its argument.
    assert body[0].startswith(r"{[}1, 2] & " + name + r"\textasciicircum{}m {[}bold]n{[}/bold] :smile: {[}1, 2] & 10")
    assert body[1] == r"0.01 & batch\_norm & 10 & 91.63 $\pm$ 0.12 & +1.52 {[}+1.31, +1.73] pp & yes \\"
    assert r"$-$1.00 {[}$-$1.23, $-$0.77] pp" in body[2]
    columns = next(line for line in lines if line.startswith(r"\begin{tabular}"))
    assert columns == r"\begin{tabular}{llrrll}"
    assert all(line.count(" & ") == 5 for line in body)


def test_every_format_ends_in_one_newline_and_says_nothing_of_this_machine() -> None:
    for format in get_args(Format):
        text = render(comparison(*ALL), format)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


# p, verdicts, own best learning rates, times


def with_p(
    p: float | None,
    adjusted: float | None,
    verdict: Verdict | None = None,
    needed: Needed | None = None,
    tests: int = 1,
) -> Difference:
    interval = Interval(0.0152, 0.0131, 0.0173)
    return Difference(10, 0, 0, interval, p, "sign-flip", adjusted, tests, verdict=verdict, needed=needed)


def with_one_test(row: ArmRow) -> ArmRow:
    assert row.difference
    return replace(row, difference=replace(row.difference, tests=1))


def test_the_adjusted_p_is_shown_and_the_title_says_how() -> None:
    values = ((1e-5, 0.0004), (0.02, 0.04), (1.0, 1.0))
    rows = [replace(BETTER, difference=with_p(p, q, tests=3)) for p, q in values]
    text = render(comparison(BASE, *rows), "md")
    assert "with its 95% interval (of its row alone) and p, Benjamini–Hochberg-adjusted for 3 rows\n" in text
    assert "p: sign-flip test of the pairs; interval: paired t." in text
    assert cells(text)[0][-2:] == ["p", "paired"]
    assert [row[-2] for row in cells(text)[2:]] == ["", r"\<0.001", "0.040", "1.000"]
    assert "with its 95% interval and p\n" in render(comparison(BASE, with_one_test(rows[1])), "md")
    judged = render(comparison(BASE, *rows, smallest_effect=0.005), "md")
    assert "with its 95% interval (of all 3 rows together) and p, Bonferroni-adjusted for 3 rows" in judged
    no_pair = replace(BETTER, difference=Difference(1, 0, 0, Interval(0.1)))
    assert cells(render(comparison(BASE, rows[1], no_pair), "md"))[-1][-2] == "–"


def test_few_pairs_are_said_to_be_few() -> None:
    few = replace(BETTER, difference=Difference(5, 0, 0, Interval(0.1, 0.0, 0.2), 0.0625, "sign-flip", 0.0625))
    assert "5 seeds cannot reach p < .05 here; run 6." in render(comparison(BASE, few))
    assert "cannot reach" not in render(comparison(BASE, replace(BETTER, difference=with_p(0.02, 0.02))))


def test_verdicts_and_the_seeds_they_need_fit_a_terminal() -> None:
    found: tuple[tuple[Verdict | None, Needed | None], ...] = (
        ("SUPERIOR", None),
        ("UNDECIDED", Needed(34, 20, 70)),
        ("UNDECIDED", Needed(9, 9, 9)),
        (None, None),
    )
    rows = [replace(BETTER, difference=with_p(0.02, 0.04, *verdict)) for verdict in found]
    made = comparison(BASE, *rows, smallest_effect=0.005)
    header, _, *body = cells(render(made, "md"))
    assert header[-4:] == ["p", "verdict", "needs", "paired"]
    assert [row[-3:-1] for row in body] == [
        ["", ""],
        ["SUPERIOR", ""],
        ["UNDECIDED", "34 (20 to 70)"],
        ["UNDECIDED", "9"],
        ["–", ""],
    ]
    wide, narrow = render(made, width=120), render(made, width=80)
    assert "SUPERIOR: better by 0.5 pp or more; UNDECIDED: not shown with these seeds." in wide.replace("\n", " ")
    assert "needs: how many seeds would give a verdict with 80% power" in wide.replace("\n", " ")
    assert "Not shown" not in wide
    assert max(map(len, narrow.splitlines())) <= 80
    assert "UNDECIDED\n" in narrow
    assert "Not shown at this width: needs, paired." in narrow
    assert "needs" not in render(comparison(BASE, rows[0], smallest_effect=0.005))


def test_own_best_rows_stand_apart_and_name_the_edge() -> None:
    base = replace(BASE, cell={"lr": 0.1}, own_best_lr="inner")
    best = replace(BETTER, cell={"lr": 1.0}, own_best_lr="edge")
    text = render(comparison(BASE, BETTER, base, best), width=100)
    lines = [line.split()[:2] for line in text.partition("─\n")[2].splitlines() if "±" in line]
    assert lines == [["0.01", "no_batch_norm"], ["0.01", "batch_norm"], ["best", "0.1"], ["best!", "1"]]
    assert text.split("─\n")[1].partition("\n\nbest:")[0].count("\n\n") == 1
    assert "a better one may lie beyond (batch_norm 1)." in text
    assert "beyond" not in render(comparison(BASE, BETTER, base, replace(best, own_best_lr="inner")))


def test_who_diverged_is_said_with_its_interval_and_p() -> None:
    lost = replace(BAD, divergence=Divergence(Interval(0.3, 0.108, 0.603), None))
    kept = replace(ALONE, divergence=Divergence(Interval(0.0, 0.0, 0.278), 0.25))
    other = replace(BASE, divergence=Divergence(Interval(0.0, 0.0, 0.278), None))
    text = render(comparison(other, lost, kept), width=200)
    assert "no_batch_norm lr 0.1 30% [11, 60]; batch_norm lr 0.1 0% [0, 28], p 0.250." in text
    assert "McNemar" not in render(comparison(other, BETTER))


TIME = Time(1234.5, Interval(-300, -400, -200), Interval(0.804, 0.7, 0.9))
TIMED = (
    replace(BASE, to_target=ToTarget(10, 9, Time(1534.5, None, None), Time(1.239, None, None))),
    replace(BETTER, to_target=ToTarget(10, 10, TIME, replace(TIME, mean=0.99, ratio=Interval(0.5)))),
    replace(UNPAIRED, to_target=ToTarget(0, 0, None, None)),
)


@pytest.mark.parametrize("format", ["table", "md", "latex"])
def test_steps_and_seconds_to_a_target_are_a_second_table(format: Format) -> None:
    text = render(comparison(*TIMED, target=0.9), format)
    assert text.startswith(render(comparison(*TIMED), format).rstrip("\n"))
    below = text[len(render(comparison(*TIMED), format)) :].replace("\n", " ").replace("\\_", "_")
    assert "Steps and seconds to valid_accuracy 0.9 or more" in below
    for shown in ("9/10", "1534", "1.24", "0.80", "0.70, 0.90]", "0.99", "0.50", "0/0"):
        assert shown in below
    assert "Steps and seconds" not in render(comparison(*TIMED), format)


def test_the_second_table_has_its_own_columns() -> None:
    header, _, *body = cells(render(comparison(*TIMED, target=0.9), "md"))[5:]
    assert header == ["lr", "network", "reached", "steps", "ratio", "seconds", "ratio"]
    assert body[1][2:] == ["10/10", "1234", "0.80 [0.70, 0.90]", "0.99", "0.50"]
    assert body[2][2:] == ["0/0", "–", "–", "–", "–"]
    alone = comparison(TIMED[0], axis=None, baseline=None, target=0.5, metric="valid_loss")
    assert cells(render(alone, "md"))[3] == ["lr", "reached", "steps", "seconds"]
    assert "valid\\_loss 0.5 or less" in render(alone, "md")


def test_forced_colours_reach_a_pipe(bnbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parent.parent.parent / "results/reference/notebook_mlp"
    assert "\x1b[" not in bnbench("compare", folder).stdout
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[32m+0.81" in bnbench("compare", folder).stdout


def test_a_command_without_an_output_ends_without_an_error() -> None:
    command = [sys.executable, "-m", "runner.interfaces.cli.main", "compare", "results/reference/notebook_mlp"]
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], cwd=root, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
