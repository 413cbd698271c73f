"""The imports run one way, and nothing heavy is imported where nothing is trained."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def imports(path: Path) -> set[str]:
    """The modules of this project that a file imports, wherever in it the import stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the arrow"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("runner", "experiments", "tests", "benchmarks")}


def test_the_runner_knows_no_experiment() -> None:
    for path in (ROOT / "runner").rglob("*.py"):
        assert not {name for name in imports(path) if not name.startswith("runner")}, path


def test_experiments_know_the_registries_and_little_else() -> None:
    facts = (
        "runner.registry",
        "runner.errors",
        "runner.training.data.datasets",
        "runner.training.data.seeding",
        "runner.analysis.claims.judge",
        "runner.analysis.claims.per_seed",
    )
    allowed = (*facts, "experiments")
    for path in (ROOT / "experiments").rglob("*.py"):
        assert not {name for name in imports(path) if name != "runner" and not name.startswith(allowed)}, path


def test_the_import_graph_has_no_cycle() -> None:
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ("runner", "experiments")
        for path in (ROOT / package).rglob("*.py")
    }
    # "from experiments import x" in experiments/__init__.py names the package itself: no arrow.
    graph = {name: (imports(path) & set(modules)) - {name} for name, path in modules.items()}
    graph["runner"] = set()  # its names are imported on first use

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        for other in graph[name]:
            if other not in done:
                visit(other, (*trail, name))
        done.add(name)

    done: set[str] = set()
    for name in graph:
        visit(name, ())


@pytest.mark.parametrize(
    ("arguments", "unwanted"),
    [
        (["--help"], ("torch", "pandas", "scipy")),
        (["plan", "configs/quickstart.yaml"], ("torch", "pandas", "scipy")),
        (["networks"], ("torch", "pandas")),
        (["watch", "results/reference/tutorial"], ("torch", "pandas", "scipy")),
        (["compare", "results/reference/tutorial"], ("torch",)),
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
