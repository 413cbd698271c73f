"""The page: complete, self-contained, right for odd sweeps, and alive in a real browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from benchmarks.made_up import made_up
from runner.analysis.comparison import compare
from runner.config.run_spec import RunSpec
from runner.reporting.page.report import report
from runner.reporting.sentences import sentences
from runner.storage.results import load

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "results/reference"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

TWO = {"network": ["no_batch_norm", "batch_norm"]}
Bnbench = Callable[..., Result]


def accuracy(run: RunSpec, epoch: int) -> tuple[float, float, float, float]:
    value = 0.5 + 0.1 * epoch + 0.01 * (run.seed % 7) + 0.02 * (run.network == "batch_norm") * (run.lr > 0.05)
    return 1 - value, value, 1 - value, value


def sweep(tmp_path: Path, grid: dict[str, Any], name: str = "study", contrast: bool = True, **how: Any) -> Path:
    config: dict[str, Any] = {"name": name, "fixed": {"dataset": "digits", "device": "cpu", "epochs": 3}, "grid": grid}
    if contrast:
        config["contrast"] = {"axis": "network", "baseline": "no_batch_norm"}
    return made_up(tmp_path, config, how.pop("draw", accuracy), **how)


class Page(HTMLParser):
    """What a page refers to, its ids, and its text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.refers: list[str] = []
        self.pictures: list[str] = []
        self.words = ""
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.ids.append(values["id"])
        self.refers += [values[name] for name in ("href", "src", "xlink:href", "action") if name in values]
        if values.get("role") == "img":
            self.pictures.append(values["aria-label"])
        self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self._inside):
            self.words += data


@pytest.fixture(scope="module")
def tutorial() -> str:
    return report(REFERENCE / "tutorial")


def test_the_page_of_the_tutorial_is_whole_and_alone(tutorial: str) -> None:
    text, page = tutorial, Page(tutorial)
    assert (
        page.words.count("batch_norm does better than no_batch_norm: validation accuracy +0.33 [+0.01, +0.66] pp") == 1
    )
    assert len(page.ids) == len(set(page.ids))
    assert all(place.startswith(("#", "data:")) for place in page.refers)
    assert {place[1:] for place in page.refers if place.startswith("#")} <= set(page.ids)
    for id in ("comparison", "accuracy", "loss", "differences", "pairs", "target", "every-run", "again"):
        assert f'<section id="{id}">' in text
    assert all(len(description) > 40 for description in page.pictures)  # in words, for those who cannot see it
    assert len(text.encode()) < 3_000_000
    assert report(REFERENCE / "tutorial") == text


def test_the_tables_on_the_page_are_those_of_compare(bnbench: Bnbench, tutorial: str) -> None:
    words = Page(tutorial).words
    for line in bnbench("compare", REFERENCE / "tutorial", "--format", "md").stdout.splitlines():
        if line.startswith("| ") and "---" not in line:
            assert "".join(map(str.strip, line.replace("\\", "").split("|"))) in words


@pytest.mark.usefixtures("undrawn")
def test_what_a_config_or_an_error_says_is_text_not_markup(tmp_path: Path) -> None:
    folder = sweep(tmp_path, {**TWO, "seed": [0, 1]}, ended=lambda run: ("failed", 1) if run.seed else None)
    table = (folder / "runs.csv").read_text(encoding="utf-8")
    number = table.split("\n")[0].split(",").index("error")
    lines = [line.split(",") for line in table.splitlines()]
    lines[2][number] = "<script>alert(1)</script>&amp;"
    (folder / "runs.csv").write_text("\n".join(map(",".join, lines)) + "\n", encoding="utf-8")
    text = report(folder)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;" in text
    assert "run 2 failed: <script>alert(1)</script>&amp;" in " ".join(Page(text).words.split())


@pytest.mark.usefixtures("undrawn")
def test_a_large_sweep_is_drawn_and_listed_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sweep(tmp_path, {**TWO, "seed": list(range(3))})
    assert "are drawn beside each mean" not in Page(report(folder)).words
    monkeypatch.setattr("runner.reporting.figures.study.LARGE", 5)
    monkeypatch.setattr("runner.reporting.page.report.LARGE", 5)
    words = Page(report(folder)).words
    assert "at most the first 20 are drawn beside each mean" in words
    assert "The table has the first 5 runs. All of them are in runs.csv." in words


@pytest.mark.usefixtures("undrawn")
def test_figures_left_out_are_counted_and_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.reporting.page.report.MOST_PANELS", 4)
    folder = sweep(tmp_path, {**TWO, "lr": [0.1, 0.2, 0.3], "seed": [0]})
    assert "8 more figures of this kind are not on this page" in Page(report(folder)).words
    assert "more figures" not in Page(report(folder, {"lr": 0.1})).words


@pytest.mark.parametrize(
    ("grid", "how", "said"),
    [
        ({**TWO, "seed": [0]}, {}, "of one pair of runs, which says nothing about chance"),
        ({"network": ["batch_norm"], "seed": [0, 1]}, {"contrast": False}, "Nothing is contrasted here"),
        ({**TWO, "seed": [0, 1]}, {"ended": lambda _: ("failed", 0)}, "No run has ended yet"),
        (
            {**TWO, "seed": [0, 1]},
            {"ended": lambda run: ("failed", 0) if run.network == "no_batch_norm" else None},
            "batch_norm cannot be compared with no_batch_norm: no pair of runs has ended.",
        ),
        (
            {**TWO, "seed": {"range": 8}},
            {},
            "No difference is shown between batch_norm and no_batch_norm: validation accuracy +0.00 [+0.00, +0.00] pp",
        ),
        (
            {**TWO, "lr": [0.1, 0.2], "batch_size": [10, 20], "seed": {"range": 8}},
            {},
            "batch_norm against no_batch_norm in 4 settings: better in 4, worse in 0, no clear difference in 0",
        ),
        ({**TWO, "seed": {"range": 8}, "lr": [0.1]}, {}, "batch_norm does better than no_batch_norm"),
    ],
)
def test_the_sentence_says_no_more_than_the_table(
    tmp_path: Path, grid: dict[str, Any], how: dict[str, Any], said: str
) -> None:
    folder = sweep(tmp_path, grid, **how)
    assert said in " ".join(sentences(compare([load(folder)])))


@pytest.mark.usefixtures("undrawn")
def test_a_sweep_that_is_still_running_and_a_run_managers_folder(tmp_path: Path) -> None:
    running = sweep(tmp_path, {**TWO, "seed": {"range": 4}})
    rows = (running / "runs.csv").read_text().splitlines(keepends=True)
    (running / "runs.csv").write_text("".join(rows[:6]))
    words = Page(report(running)).words
    assert "5 ok of 8" in words
    assert "missing" in words

    manager = tmp_path / "manager"
    shutil.copytree(running, manager)
    (manager / "config.yaml").unlink()
    assert "written by RunManager" in Page(report(manager)).words


def test_the_command_writes_one_file_and_says_where(bnbench: Bnbench, tmp_path: Path) -> None:
    folder = sweep(tmp_path, {**TWO, "seed": [0, 1]})
    done = bnbench("report", folder)
    assert (done.exit_code, done.stdout) == (0, f"{folder / 'report.html'}\n")
    done = bnbench("report", tmp_path / "nowhere")
    assert (done.exit_code, "nowhere" in done.stderr) == (2, True), done.stderr
    done = bnbench("report", folder, "-o", tmp_path / "no/x.html")
    assert (done.exit_code, "its folder does not exist" in done.stderr) == (2, True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    sync_api = pytest.importorskip("playwright.sync_api")
    quiet = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(quiet))
        yield chromium
        chromium.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_chromium_with_the_network_off(browser: Any, tmp_path: Path, tutorial: str, width: int, scheme: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(tutorial, encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing scrolls sideways but tables
    boxes = page.evaluate("[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect().toJSON())")
    assert len(boxes) == 12
    assert all(box["left"] >= 0 and box["right"] <= width and box["height"] > 100 for box in boxes)
    # Letters of the pictures are never smaller than 8 px on a phone, and no two tick labels touch.
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('figure svg')].map(s =>"
        " s.getBoundingClientRect().width / s.viewBox.baseVal.width * 8))"
    )
    assert smallest >= 8
    context.close()


def test_tables_sort_and_filter_by_keyboard(browser: Any, tmp_path: Path, tutorial: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(tutorial, encoding="utf-8")
    page = browser.new_page()
    page.goto(path.as_uri())
    column = page.locator("#runs-table th").all_inner_texts().index("valid %")

    def shown() -> list[float]:
        cells = page.locator(f"#runs-table tbody tr:visible td:nth-child({column + 1})")
        return [float(text) for text in cells.all_inner_texts()]

    first = shown()
    heading = page.locator(f"#runs-table th:nth-child({column + 1}) button")
    for order, expected in (("ascending", sorted(first)), ("descending", sorted(first, reverse=True)), ("none", first)):
        heading.focus()
        page.keyboard.press("Enter")
        assert page.locator(f"#runs-table th:nth-child({column + 1})").get_attribute("aria-sort") == order
        assert shown() == expected
    page.locator(".tools[data-for=runs-table] input").fill("no_batch_norm 50")
    assert page.locator(".tools[data-for=runs-table] .count").inner_text() == f"{len(shown())} of 42 rows"
    assert 0 < len(shown()) < 21
    for words, rows in (("batch_norm", 21), ("network=batch_norm seed=3", 1), ("NORM", 0), ("", 42)):
        page.locator(".tools[data-for=runs-table] input").fill(words)
        assert len(shown()) == rows, words
    page.close()
