"""The packages stand in one order, imports run one way, and nothing heavy is imported where nothing is trained."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

import bnbench
import runner

ROOT = Path(__file__).parent.parent

ORDER = (
    {"errors"},
    {"factories"},
    {"registry"},
    {"config"},
    {"storage"},
    {"analysis", "monitoring", "training"},
    {"reporting", "execution"},
    {"interfaces"},
)
"""The parts of runner, from the bottom to the top. A part imports what stands below it, and nothing beside it."""

SOURCES = sorted(path for package in ("bnbench", "runner", "experiments") for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> set[str]:
    """The modules of this project that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: use absolute imports"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("bnbench", "runner", "experiments", "tests", "benchmarks")}


def test_the_runner_has_eight_packages_and_few_modules() -> None:
    entries = [path for path in (ROOT / "runner").iterdir() if path.name not in ("__pycache__", "py.typed")]
    packages = {path.name for path in entries if path.is_dir()}
    assert packages == set().union(*ORDER) - {"errors", "factories", "registry"}
    assert len(packages) == 8
    assert len(entries) - len(packages) <= 4


def test_each_package_imports_only_what_stands_below_it() -> None:
    level = {name: number for number, names in enumerate(ORDER) for name in names}
    for path in (ROOT / "runner").rglob("*.py"):
        part = path.relative_to(ROOT / "runner").with_suffix("").parts[0]
        if part == "__init__":  # the public names, imported on first use
            continue
        for name in imports(path):
            other = [*name.split("."), ""][1]
            allowed = other == part or other not in level or level[other] < level[part]
            assert allowed, f"{path.relative_to(ROOT)} imports {name}"


def test_every_public_name_can_be_imported() -> None:
    assert {"RunBuilder", "RunManager", "load", "run", "network", "norm", "dataset", "claim"} <= set(runner.__all__)
    for name in runner.__all__:
        assert callable(getattr(runner, name)), name
        assert getattr(bnbench, name) is getattr(runner, name), name


def test_a_type_checker_sees_every_public_name() -> None:
    source = (ROOT / "runner/__init__.py").read_text(encoding="utf-8")
    assert sorted(re.findall(r" import (\w+) as \1$", source, re.MULTILINE)) == sorted(runner.__all__)


def test_the_runner_knows_no_experiment() -> None:
    for path in (ROOT / "runner").rglob("*.py"):
        assert not {name for name in imports(path) if not name.startswith("runner")}, path


def test_experiments_know_the_registries_and_little_else() -> None:
    allowed = (
        "runner.registry",
        "runner.factories",
        "runner.errors",
        "runner.training.data",
        "runner.analysis.claims",
        "experiments",
    )
    for path in (ROOT / "experiments").rglob("*.py"):
        assert not {name for name in imports(path) if name != "runner" and not name.startswith(allowed)}, path


def test_the_import_graph_has_no_cycle() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in SOURCES
    }
    # "from experiments import x" in experiments/__init__.py names the package itself: no arrow.
    graph = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    graph["runner"] = set()  # the public names, imported on first use
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for other in graph[name]:
            if other not in done:
                visit(other, (*trail, name))
        done.add(name)

    for name in graph:
        visit(name, ())


def test_declaring_a_claim_does_not_import_the_driver() -> None:
    code = "import sys, runner.analysis.claims.judge; assert 'runner.execution.driver' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_packages_that_train_nothing_import_no_torch() -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for package in ("config", "storage", "analysis", "monitoring")
        for path in (ROOT / "runner" / package).rglob("*.py")
    ]
    code = f"import sys, {', '.join(modules)}\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_a_package_alone_costs_nothing() -> None:
    packages = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "runner").rglob("__init__.py"))
    code = (
        f"import sys, runner\nbefore = set(sys.modules)\nimport {', '.join(packages)}\n"
        "assert not {'torch', 'pandas', 'pydantic', 'matplotlib'} & set(sys.modules) - before"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_page_names_files_that_exist() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+\.py)`", page):
        known = any(path.as_posix().endswith(f"/{name}") for path in (*SOURCES, Path(__file__)))
        assert known or (ROOT / name).exists(), name


def test_files_and_functions_are_short() -> None:
    lengths = {}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        lengths[path] = len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1
                assert length <= 50, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"
    assert not {path: length for path, length in lengths.items() if length > 300}
    assert median(lengths.values()) <= 120


def test_test_files_are_short() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 500, path


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], ("torch", "pandas", "scipy")),
        (["plan", "configs/quickstart.yaml"], ("torch", "pandas", "scipy")),
        (["networks"], ("torch", "pandas")),
        (["watch", "results/reference/tutorial"], ("torch", "pandas", "scipy")),
        (["compare", "results/reference/tutorial"], ("torch",)),
        (["claims"], ("torch", "scipy.stats", "statsmodels")),
    ],
)
def test_commands_that_train_nothing_import_nothing_heavy(arguments: list[str], unwanted: tuple[str, ...]) -> None:
    code = (
        "import sys; from runner.interfaces.cli.main import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: assert not end.code, end.code\n"
        f"loaded = [name for name in {unwanted!r} if name in sys.modules]; assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
