"""`compare`, `report`, `plot` and notebooks on a table of another tool."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import runner
from runner.analysis.comparison import compare
from runner.errors import UserError
from runner.reporting.figures.kinds import KINDS, draw
from runner.reporting.figures.study import study
from runner.reporting.page.report import report
from runner.reporting.tables import render
from runner.storage.foreign import table
from runner.storage.foreign.question import Question

Bnbench = Callable[..., Result]
Write = Callable[[str, str], Path]

FORMS = ("table", "csv", "json", "md", "latex")
NOT_PROVEN = "by seed, data; equal starting points not proven"
OPTIONS = shlex.split("--axis method --baseline ridge --pair seed,data --metric rmse")

HEALTH = [HealthCheck.function_scoped_fixture]  # Each example writes the file anew.


@pytest.fixture
def runs(write: Write) -> Path:
    lines = ["method,data,seed,rmse"]
    lines += [f"ridge,{data},{seed},{2 + seed / 8}" for data in "xy" for seed in range(4)]
    lines += [f"forest,{data},{seed},{1.75 + seed / 16}" for data in "xy" for seed in range(4)]
    return write("runs.csv", "\n".join(lines))


@pytest.mark.parametrize("style", FORMS)
def test_every_form_says_how_it_is_paired_and_what_is_better(bnbench: Bnbench, runs: Path, style: str) -> None:
    done = bnbench("compare", runs, *OPTIONS, "--format", style)
    assert done.exit_code == 0, done.stderr
    text = " ".join(done.stdout.split())
    assert NOT_PROVEN in text
    assert ("Lower rmse is better: judged by its name" in text) == (style in ("table", "md", "latex"))
    assert "%" not in text.replace("95%", "").replace(r"95\%", "").replace(r"% \usepackage", "")
    if style == "json":
        forest = json.loads(done.stdout)[1]
        assert (forest["paired"], forest["better"], forest["pairs"]) == (NOT_PROVEN, "lower", 8)


def test_a_share_is_shown_in_percent(bnbench: Bnbench, write: Write) -> None:
    path = write("t.csv", "m,seed,val_acc\n" + "".join(f"{m},{s},{0.5 + s / 64}\n" for m in "AB" for s in range(3)))
    options = shlex.split("--axis m --baseline A --pair seed --metric val_acc --share --better higher")
    text = bnbench("compare", path, *options, "--smallest-effect", "0.01").stdout
    assert "mean ± SD (%)" in text
    assert "+0.00 [+0.00, +0.00] pp" in text
    assert "smallest effect of 1 pp" in text
    assert "Higher val_acc is better, as stated." in text


def test_the_page_of_a_table(bnbench: Bnbench, runs: Path) -> None:
    done = bnbench("report", runs, *OPTIONS, "--smallest-effect", "0.1", "--where", "data=x")
    assert (done.exit_code, done.stdout) == (0, f"{runs.with_name('runs-report.html')}\n"), done.stderr
    page = runs.with_name("runs-report.html").read_text(encoding="utf-8")
    for text in (
        "Too few seeds to compare forest with ridge (4 seeds cannot reach p &lt; .05 here; run 6): rmse -0.",
        "Paired by seed, data; equal starting points not proven. Pairs: forest 4.",
        "bnbench report runs.csv --axis method --baseline ridge --pair seed,data --metric rmse --smallest-effect 0.1",
        "Another tool wrote the table.",
        "Difference to ridge in rmse, pairs by seed, data; equal starting points not proven; lower is better",
    ):
        assert text in page
    assert "(%)" not in page
    assert "RunManager" not in page
    assert "resume" not in page


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_each_figure_is_drawn_or_says_what_it_needs(bnbench: Bnbench, runs: Path, kind: str) -> None:
    done = bnbench("plot", runs, kind, *OPTIONS)
    if kind in ("differences", "pairs"):
        assert (done.exit_code, done.stdout) == (0, f"{runs.with_name(f'runs-{kind}.svg')}\n")
    else:
        assert done.exit_code == 2
        assert "it needs " in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_learning_rates_of_a_table_are_numbers(write: Write) -> None:
    text = "m,seed,lr,err\n" + "".join(f"{m},{s},{r},{s + r}\n" for m in "AB" for s in range(3) for r in (0.1, 0.01))
    asked = Question("m", (), "A", ("seed", "lr"), "err")
    (panel,) = draw(study(table.load(write("t.csv", text), asked)), "learning-rate")
    assert panel.description.startswith("Err by learning rate: A best at 0.01, 0 of 6 diverged")
    words = table.load(write("w.csv", text.replace(",0.01,", ",low,")), asked)
    assert compare([words], group_by=["lr"]).cell_columns == ("lr",)
    with pytest.raises(UserError, match="it needs more than one lr"):
        draw(study(words), "learning-rate")


def test_a_pair_line_is_coloured_where_the_lower_error_is_better(runs: Path) -> None:
    from matplotlib.figure import Figure

    of = study(table.load(runs, Question("method", (), "ridge", ("seed", "data"), "rmse")))
    (panel,) = draw(of, "pairs")
    axes = Figure().subplots()
    panel.draw(axes)
    counts = [len(lines.get_paths()) for lines in axes.collections[:2]]
    assert counts == [8, 0]
    assert axes.get_ylabel() == "rmse"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("compare runs.csv", "is a file, and no sweep; a table of another tool needs --axis or --wide"),
        (
            "compare runs.csv --baseline ridge",
            "is a file, and no sweep; a table of another tool needs --axis or --wide",
        ),
        ("compare runs.csv runs.csv --axis method", "a comparison reads one table of another tool at a time"),
        ("report runs.csv --axis methd --baseline a --pair seed --metric rmse", "did you mean 'method'?"),
        (
            "compare runs.csv --axis method --baseline ridge --pair seed --metric rmse",
            "line 2 and line 6 have the same",
        ),
        (
            "compare runs.csv --axis method --baseline ridge --pair seed,data --metric rmse --smallest-effect 0",
            "--smallest-effect: 0.0 is no effect; allowed: a number above 0, in the metric's unit",
        ),
    ],
)
def test_one_line_and_exit_code_2(
    bnbench: Bnbench, runs: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
) -> None:
    monkeypatch.chdir(runs.parent)
    done = bnbench(*command.split())
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_in_a_notebook(runs: Path) -> None:
    outcome = runner.table(runs, axis="method", baseline="ridge", pair=["seed", "data"], metric="rmse")
    assert repr(outcome) == f"<bnbench table 'runs' in {runs}: 16 ok>"
    assert NOT_PROVEN in outcome._repr_html_()
    assert NOT_PROVEN in repr(outcome.plot("pairs"))
    assert outcome.compare().frame["paired"].iloc[1] == NOT_PROVEN
    assert outcome.report() == runs.with_name("runs-report.html")


@given(st.text(alphabet='AB12.,;\t\n"x-=\u202e\x00é', max_size=60), st.booleans())
@example('"', False)
@example('1,1,"\n;', False)
@example('"x\ny",1,1\n"x\ny",1,1\n', False)
@example("A\n1\n,\n", True)
@settings(
    max_examples=100, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_a_table_or_one_line(tmp_path: Path, text: str, wide: bool) -> None:
    path = tmp_path / "t.csv"
    path.write_text(("seed,A,B\n1,1,2\n" if wide else "m,seed,x\nA,1,1\nB,1,2\n") + text, encoding="utf-8")
    asked = Question("", ("A", "B"), "A", ("seed",)) if wide else Question("m", (), "A", ("seed",), "x")
    try:
        result = table.load(path, asked)
    except UserError as error:
        lines = str(error).splitlines()
    else:
        lines = [render(compare([result]), "csv").splitlines()[0]]
    assert len(lines) == 1


def test_a_hostile_text_stays_a_text(write: Write) -> None:
    path = write("t.csv", 'm,seed,x\n<script>alert(1)</script>,1,1\n"=cmd()",1,2\n"a\x1b[31m",1,3\n')
    result = table.load(path, Question("m", (), "=cmd()", ("seed",), "x"))
    assert "<script>alert" not in report(result)
    for style in FORMS[:1] + FORMS[3:]:
        assert "\x1b" not in render(compare([result]), style)  # type: ignore[arg-type]
