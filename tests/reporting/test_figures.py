"""The figures: their lines are the tables' numbers, nothing is cut off, and the same table gives the same bytes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.made_up import made_up
from runner.analysis.stats.intervals import mean_band
from runner.config.run_spec import RunSpec
from runner.errors import UserError
from runner.reporting.figures.kinds import KINDS, draw
from runner.reporting.figures.study import Study, study
from runner.reporting.figures.style import BASELINE, COLOURS, Panel, figure, settings, svg

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "results/reference"

CONTRAST = {"axis": "network", "baseline": "no_batch_norm"}
FIXED = {"dataset": "digits", "device": "cpu", "epochs": 3}

Bnbench = Callable[..., Result]


def accuracy(run: RunSpec, epoch: int) -> tuple[float, float, float, float]:
    """Batch norm gains 2 points; every seed has its own level."""
    value = 0.5 + 0.1 * epoch + 0.01 * (run.seed % 7) + 0.02 * (run.network == "batch_norm")
    return 1 - value, value - 0.01, 1.1 - value, value


def study_of(tmp_path: Path, grid: Mapping[str, Any], **more: Any) -> Study:
    config = {"contrast": CONTRAST, "fixed": FIXED, "grid": grid}
    return study(made_up(tmp_path, config, accuracy, **more))


def drawn(panel: Panel) -> Figure:
    with settings():
        return figure([panel])


TWO = {"network": ["no_batch_norm", "batch_norm"]}


def test_the_mean_band_is_scipys_over_the_finite_values() -> None:
    values = np.array([[1.0, 2.0, np.nan, np.nan], [2.0, np.inf, np.nan, 5.0], [4.0, 8.0, np.nan, np.nan]])
    mean, low, high = mean_band(values)
    for column, kept in ((0, [1.0, 2.0, 4.0]), (1, [2.0, 8.0])):
        expected = stats.t.interval(0.95, len(kept) - 1, np.mean(kept), stats.sem(kept))
        assert (mean[column], low[column], high[column]) == pytest.approx((np.mean(kept), *expected))
    assert np.isnan([mean[2], low[2], high[2]]).all()
    assert mean[3] == 5.0
    assert np.isnan([low[3], high[3]]).all()


def test_a_curve_is_the_mean_of_metrics_csv_by_epoch_and_by_seconds() -> None:
    of = study(REFERENCE / "tutorial")
    metrics = pd.read_csv(REFERENCE / "tutorial/metrics.csv")
    by_epoch, by_seconds = draw(of, "accuracy")[:2]
    for panel, clock in ((by_epoch, "epoch"), (by_seconds, "run_duration")):
        (axes,) = drawn(panel).axes
        for label, network in (("no_batch_norm (n = 21)", "no_batch_norm"), ("batch_norm (n = 21)", "batch_norm")):
            (line,) = [line for line in axes.lines if line.get_label() == label]
            means = metrics[metrics["network"] == network].groupby("epoch")[[clock, "valid_accuracy"]].mean()
            assert line.get_xdata() == pytest.approx(means.index if clock == "epoch" else means[clock])
            assert line.get_ydata() == pytest.approx(100 * means["valid_accuracy"])
        seeds = [path for collection in axes.collections for path in collection.get_paths()]
        assert len(seeds) == 2 * 21 + 2  # a line a seed, and the two bands


def test_pairs_are_the_comparisons() -> None:
    of = study(REFERENCE / "tutorial")
    (panel,) = draw(of, "pairs")
    assert panel.title == "batch_norm against no_batch_norm: +0.33 [+0.01, +0.66] pp, 21 pairs"
    metrics = pd.read_csv(REFERENCE / "tutorial/metrics.csv").query("epoch == 10")
    ends = metrics.pivot(index="seed", columns="network", values="valid_accuracy")
    axes = drawn(panel).axes[0]
    lines = [np.asarray(path.vertices) for collection in axes.collections for path in collection.get_paths()]
    slopes = sorted(float(line[1][1] - line[0][1]) for line in lines if len(line) == 2 and line[1][0] == 1)
    assert slopes == pytest.approx(sorted(100 * (ends["batch_norm"] - ends["no_batch_norm"])))


def test_the_target_figure_counts_the_runs_there(tmp_path: Path) -> None:
    of = study_of(tmp_path, {**TWO, "seed": {"range": 7}})
    of = study(of.results.folder, target=0.745)  # in epoch 2: two seeds of no_batch_norm… see `accuracy`
    steps, _ = draw(of, "target")
    (axes,) = drawn(steps).axes
    for line, network in zip(axes.lines, ("no_batch_norm", "batch_norm"), strict=True):
        for step in (10, 20, 30):
            there = sum(accuracy(RunSpec(network=network, seed=seed), step // 10)[3] >= 0.745 for seed in range(7))
            x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
            assert y[x <= step].max() == pytest.approx(100 * there / 7)


def test_a_diverged_run_is_a_cross_at_its_learning_rate(tmp_path: Path) -> None:
    ended = lambda run: ("diverged", 2) if (run.network, run.lr, run.seed) == ("no_batch_norm", 1.0, 3) else None  # noqa: E731
    of = study_of(tmp_path, {**TWO, "lr": [0.01, 0.1, 1.0], "seed": {"range": 5}}, ended=ended)
    (panel,) = draw(of, "learning-rate")
    assert "no_batch_norm best at 0.01, 1 of 15 diverged" in panel.description
    (axes,) = drawn(panel).axes
    (cross,) = [line for line in axes.lines if line.get_marker() == "x"]
    assert len(np.asarray(cross.get_xdata())) == 1
    assert np.asarray(cross.get_xdata())[0] == pytest.approx(1.0, rel=0.06)


def test_gradient_norms_are_the_roots_of_the_probes() -> None:
    folder = REFERENCE / "claims/gradients"
    of = study(folder, {"network.activation": "relu"})
    (panel,) = [each for each in draw(of, "gradients") if "weights: batch" in each.title]
    probes = pd.read_csv(folder / "probes.csv", dtype={"layer": str})
    runs = pd.read_csv(folder / "runs.csv")
    kept = runs[(runs["network.activation"] == "relu") & (runs["network.norm"] == "batch")]["run"]
    chosen = probes[
        (probes["measure"] == "weight_gradient_squared") & probes["run"].isin(kept) & (probes["layer"] == "1")
    ]
    expected = chosen.assign(value=np.sqrt(chosen["value"])).groupby("epoch")["value"].mean()
    (line,) = [line for line in drawn(panel).axes[0].lines if line.get_label() == "layer 1"]
    assert line.get_ydata() == pytest.approx(expected)


LONG = "a_network_whose_name_somebody_chose_with_great_care_and_no_thought_of_pictures"


def edge_cases(tmp_path: Path) -> dict[str, Study]:
    plugin = tmp_path / "long.py"
    names = (f"{LONG}_one", f"{LONG}_two", "a$b$c", "网络")
    plugin.write_text(
        "from runner import network\n"
        + "".join(f"@network({name!r})\ndef made_{n}():\n    ...\n" for n, name in enumerate(names)),
        encoding="utf-8",
    )
    nan = float("nan")

    def broken(run: RunSpec, epoch: int) -> tuple[float, float, float, float]:
        return (nan, nan, nan, nan) if run.seed == 1 and epoch > 1 else accuracy(run, epoch)

    def folder(name: str, grid: Mapping[str, Any], contrast: Any = CONTRAST, **how: Any) -> Study:
        config: dict[str, Any] = {"name": name, "fixed": FIXED, "grid": grid, "plugins": ["long.py"]}
        config |= {"contrast": contrast} if contrast else {}
        return study(made_up(tmp_path, config, how.pop("draw", accuracy), **how))

    seeds = {"range": 4}
    return {
        "long names": folder(
            "long",
            {"network": list(names), "seed": seeds},
            {"axis": "network", "baseline": names[0], "smallest_effect": 0.005},
        ),
        "one seed": folder("one", TWO),
        "no contrast": folder("none", {"network": names[:1], "lr": [0.01, 0.1], "seed": seeds}, None),
        "nan": folder(
            "nan", {**TWO, "seed": seeds}, draw=broken, ended=lambda run: ("diverged", 3) if run.seed == 1 else None
        ),
        "all failed": folder("failed", {**TWO, "seed": seeds}, ended=lambda _: ("failed", 0)),
        "baseline failed": folder(
            "half", {**TWO, "seed": seeds}, ended=lambda run: ("failed", 1) if run.network == "no_batch_norm" else None
        ),
        "many": folder("many", {**TWO, "lr": [0.01, 1.0], "seed": {"range": 70}}),
    }


@pytest.mark.filterwarnings("ignore:Glyph")
def test_nothing_is_cut_off_whatever_the_sweep(tmp_path: Path) -> None:
    seen = 0
    for case, of in edge_cases(tmp_path).items():
        for kind, panels_of in KINDS.items():
            for panel in panels_of(of) if len(of.results.metrics) else []:
                with settings():
                    found = figure([panel])
                    found.draw_without_rendering()
                    needed = found.get_tightbbox()
                width, height = found.get_size_inches()
                seen += 1
                assert min(needed.x0, needed.y0, width - needed.x1, height - needed.y1) > -0.02, (case, kind, needed)
    assert seen > 50


def test_the_same_table_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from runner.reporting.figures.kinds import draw\n"
        "from runner.reporting.figures.study import Study, study\nfrom runner.reporting.figures.style import save\n"
        f"of = study(Path({str(REFERENCE / 'tutorial')!r}))\n"
        "for ending in ('svg', 'pdf', 'png'):\n"
        f"    save(draw(of, 'accuracy')[:1] + draw(of, 'pairs'), Path(FOLDER) / f'drawn.{{ending}}')"
    )
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    exec(code, {"FOLDER": str(here)})
    in_folder = f"FOLDER = {str(there)!r}\n{code}"
    subprocess.run([sys.executable, "-c", in_folder], check=True, cwd=ROOT, env={"PYTHONHASHSEED": "1"})
    for ending in ("svg", "pdf", "png"):
        assert (here / f"drawn.{ending}").read_bytes() == (there / f"drawn.{ending}").read_bytes()


def test_a_figure_for_a_page_keeps_its_text_and_has_ids_of_its_own(tmp_path: Path) -> None:
    of = study_of(tmp_path, {**TWO, "lr": [0.00316228, 0.1], "seed": [0, 1]})
    first, second = (svg(panel, f"p{n}") for n, panel in enumerate(draw(of, "accuracy")[:2]))
    assert "lr 0.00316228" in first  # coordinates are rounded, words are not
    ids = [set(re.findall(r'\bid="([^"]*)"', text)) for text in (first, second)]
    assert ids[0]
    assert not ids[0] & ids[1]
    for text, own in zip((first, second), ids, strict=True):
        assert set(re.findall(r"url\(#([^)]*)\)", text)) | set(re.findall(r'href="#([^"]*)"', text)) <= own


def luminance(color: str) -> float:
    parts = [int(color[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return float(np.dot([0.2126, 0.7152, 0.0722], linear))


def test_every_colour_can_be_seen_on_white_and_on_the_dark_page() -> None:
    """WCAG 2.2, success criterion 1.4.11: a contrast of 3 for graphics."""
    css = (ROOT / "runner/reporting/page/page.css").read_text(encoding="utf-8")
    light, dark = (
        dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", css, re.S)[:2]
    )
    assert [light["baseline"], *(light[f"arm{n}"] for n in range(len(COLOURS)))] == [BASELINE, *COLOURS]
    for theme in (light, dark):
        paper = luminance(theme["paper"])
        for name, color in theme.items():
            if name in ("ink", "soft", "accent", "baseline") or name.startswith("arm"):
                bright, dim = sorted((luminance(color), paper), reverse=True)
                assert (bright + 0.05) / (dim + 0.05) >= (4.5 if name in ("ink", "soft", "accent") else 3), (
                    name,
                    color,
                )


def test_plot_writes_what_its_name_says_and_says_what_is_missing(bnbench: Bnbench, tmp_path: Path) -> None:
    for ending, begins in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        done = bnbench("plot", REFERENCE / "tutorial", "pairs", "-o", tmp_path / f"x.{ending}")
        assert done.exit_code == 0
        assert (tmp_path / f"x.{ending}").read_bytes().startswith(begins)
    for arguments, message in (
        (["pears", "-o", tmp_path / "x.svg"], "unknown figure 'pears'; did you mean 'pairs'?"),
        (["pairs", "-o", tmp_path / "x.gif"], "it must end in .svg, .pdf, .png"),
        (["pairs", "-o", tmp_path / "no/x.svg"], "its folder does not exist"),
        (["norms", "-o", tmp_path / "x.svg"], "no figure 'norms' of this sweep: it needs a sweep with norm layers"),
        (["pairs", "-o", tmp_path / "x.svg", "--where", "lr=7"], "no run with lr 7; there are 0.01"),
        (["pairs", "-o", tmp_path / "x.svg", "--where", "sead=7"], "unknown parameter 'sead'; did you mean 'seed'?"),
        (["pairs", "-o", tmp_path / "x.svg", "--where", "lr"], "expected key=value"),
    ):
        done = bnbench("plot", REFERENCE / "tutorial", *arguments)
        assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def test_a_table_without_rows_has_nothing_to_draw(tmp_path: Path) -> None:
    of = study_of(tmp_path, {**TWO, "seed": [0]}, ended=lambda _: ("failed", 0))
    with pytest.raises(UserError, match="no epoch has ended yet"):
        draw(of, "accuracy")
