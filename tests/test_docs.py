"""What the documents say is so: their examples run, their numbers are the tables', their links lead somewhere."""

from __future__ import annotations

import csv
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from docs import shown
from runner.config import reader as config
from runner.config import yaml_source

ROOT = Path(__file__).parent.parent
OWN_NETWORK = ROOT / "docs/your-own-network.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("**/*.md"))]

Bnbench = Callable[..., Result]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def test_your_own_network_as_its_page_shows_it(
    bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (module, with_norm), (text,) = blocks(OWN_NETWORK, "python"), blocks(OWN_NETWORK, "yaml")
    assert len(module.splitlines()) < 10
    (tmp_path / "mine.py").write_text(module, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks(OWN_NETWORK, "sh")
    small = ["--set", "fixed.epochs=1", "--executor", "inline"]
    for command in commands.splitlines():
        done = bnbench(*shlex.split(command)[1:], *(small if " run " in command else []))
        assert done.exit_code == 0, done.stderr
    table = bnbench("compare", "results/mine").stdout
    assert re.search(r"^false +10 .*\n^true +10 .* pp +\S+ +yes$", table, re.MULTILINE)
    (tmp_path / "cnn.py").write_text(with_norm, encoding="utf-8")
    shown = bnbench("networks", "my_cnn", "--plugin", "cnn.py", "--set", "norm=batch").stdout
    assert "BatchNorm2d(8" in shown
    assert "network.norm_args.momentum" in shown


def test_the_config_of_the_readme_is_the_quickstart() -> None:
    (text,) = blocks(ROOT / "README.md", "yaml")
    file = (ROOT / "configs/quickstart.yaml").read_text(encoding="utf-8")
    assert yaml_source.read(text, "README.md").values == yaml_source.read(file, "quickstart.yaml").values


def test_the_example_configs_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, extending = blocks(ROOT / "docs/config.md", "yaml")
    values = yaml_source.read(text, "docs/config.md").values
    del values["plugins"]
    sweep = config.from_mapping(values)
    assert len(sweep.runs) == 2 * 2 * 7 * 2 * 20 - 2 * 2 * 2 * 20  # every combination, less batch norm at two lr
    del values["exclude"]
    (tmp_path / "base.yaml").write_text(yaml_source.dump(values), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    extended = config.from_mapping(yaml_source.read(extending, "docs/config.md").values)
    assert {(run.epochs, run.lr) for run in extended.runs} == {(20, 0.01), (20, 0.1)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("file", sorted((ROOT / "docs/slurm").iterdir()), ids=lambda file: file.name)
def test_the_page_of_clusters_shows_the_files_that_make_slurm_runs(file: Path) -> None:
    assert file.read_text(encoding="utf-8") in blocks(ROOT / "docs/cluster.md", "bash")
    assert f"$docs/{file.name}" in (ROOT / "tests/slurm/check.sh").read_text(encoding="utf-8")


def test_the_figures_of_a_cluster_are_what_the_benchmarks_gave() -> None:
    module = runpy.run_path(str(ROOT / "docs/cluster.py"))
    assert module["page"]() == module["PAGE"].read_text(encoding="utf-8")


def test_the_performance_page_is_what_the_benchmarks_gave() -> None:
    module = runpy.run_path(str(ROOT / "docs/performance.py"))
    assert module["page"]() == (ROOT / "docs/performance.md").read_text(encoding="utf-8")


def test_the_page_of_the_public_names_is_what_their_docstrings_say() -> None:
    module = runpy.run_path(str(ROOT / "docs/api.py"))
    assert module["page"]() == (ROOT / "docs/api.md").read_text(encoding="utf-8"), "make docs writes it again"


def test_the_reproductions_are_what_the_tables_give() -> None:
    module = runpy.run_path(str(ROOT / "docs/reproductions.py"))
    assert (ROOT / "docs/reproductions.md").read_text(encoding="utf-8") == module["page"]()


@pytest.mark.parametrize("page", ["README.md", "docs/questions.md", "docs/anyones-table.md"])
def test_below_a_command_stands_what_it_prints(page: str) -> None:
    """If this fails: python -m docs.shown."""
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(shown.SHOWN.findall(text)) >= 2
    assert shown.filled(text) == text
    assert ROOT / page in shown.PAGES


@pytest.mark.parametrize("name", ["MyNet", "torchvision"])
def test_the_tables_of_any_network_are_what_compare_prints(name: str, bnbench: Bnbench) -> None:
    printed = bnbench("compare", ROOT / f"results/reference/try-{name}").stdout
    assert printed.strip() in (ROOT / "docs/any-network.md").read_text(encoding="utf-8")


def test_the_table_and_the_code_of_the_page_about_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/anyones-table.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^```\n(method,.*?)```", text, re.MULTILINE | re.DOTALL)
    assert (ROOT / "results/reference/tables/diabetes.csv").read_text(encoding="utf-8").startswith(table)
    (code,) = blocks(ROOT / "docs/anyones-table.md", "python")
    monkeypatch.setattr("runner.interfaces.notebook.Picture.save", lambda _picture, path: path)
    exec(code, {})


def test_the_calibration_page_is_its_table() -> None:
    page = (ROOT / "docs/calibration.md").read_text(encoding="utf-8")
    with (ROOT / "results/reference/calibration/calibration.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            assert f"| {row['check']} | {row['expected']} | {row['measured']} | {row['verdict']} |" in page


LONG = (
    *("bnbench calibrate", "bnbench claims run", "bnbench claims show results/claims/full"),
    *("bnbench run configs/variance.yaml", "bnbench variance results/variance"),
    *("bnbench run configs/quickstart.yaml --until-decided", "bnbench plan configs/tutorial.yaml --time"),
)
"""Commands of seconds, minutes and hours, with tests of their own, such as test_forecast.py and test_until_decided.py.

(Those of a cluster are test_executors.py's, and those of shards test_shards.py's.)
"""

SMALL = {
    "run": [
        "--executor",
        "inline",
        "--set",
        "fixed.epochs=1",
        "--set",
        "fixed.train_samples=300",
        "--set",
        "grid.seed=[0]",
    ],
    "resume": ["--executor", "inline"],
    "try": [
        *("--executor", "inline", "--fresh", "--seeds", "1", "--epochs", "1"),
        *("--set", "fixed.train_samples=100", "--set", "fixed.batch_size=50"),
    ],
}

LARGE = ("fashion_mnist", "mnist_5k")
"""Data sets that `try` would evaluate networks on for many seconds; the digits of scikit-learn stand for them."""


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("page", [page for page in PAGES if page != OWN_NETWORK], ids=lambda page: page.name)
def test_every_command_of_the_documents_works(
    page: Path, bnbench: Bnbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_data: Path
) -> None:
    """In order, in one folder; runs and data sets are made small."""
    (tmp_path / "results").mkdir()
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    (tmp_path / "results/reference").symlink_to(ROOT / "results/reference")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BNBENCH_DATA_DIR", str(real_data))
    for script in blocks(page, "sh"):
        for line in script.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["make"]:
                assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
            elif words[:1] == ["bnbench"]:
                elsewhere = line.startswith(LONG) or "--executor ray" in line or "shard" in line
                arguments = ["--help"] if elsewhere else SMALL.get(words[1], [])
                if words[1] == "try":
                    words = ["digits" if word in LARGE else word for word in words]
                done = bnbench(*words[1:], *arguments)
                assert done.exit_code == 0, (line, done.stderr)
