"""Whether the package works where it is installed. `make package` runs this; the Python that runs it is the one tried.

It builds the sdist, and the wheel from the sdist. It installs the wheel in a fresh environment outside the repository,
and uses it in a folder that also holds a user's own `experiments/` and `runner.py`. It needs no data folder: the data
sets that it trains on are installed with bnbench.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parent.parent

SMALLER = {"epochs: 2": "epochs: 1", "[0, 2000]": "[0, 30]", "[2000, 4000]": "[2000, 2030]"}
"""What makes the calibration three comparisons instead of 200."""

CLAIMS = ("affine_matters_little", "eps_matters_little", "momentum_changes_evaluation_only")
"""Three of the claims, because all of them take minutes. At the budget smoke, they train on digits, too."""

CALIBRATE = f"""\
from pathlib import Path
import sys
import bnbench  # before `runner`, which is then bnbench's
from runner.analysis import calibration
from runner.interfaces.cli.main import main
smaller = Path("calibration")
smaller.mkdir()
for file in calibration.CONFIGS.glob("*.yaml"):
    text = file.read_text(encoding="utf-8")
    for old, new in {SMALLER!r}.items():
        text = text.replace(old, new)
    (smaller / file.name).write_text(text, encoding="utf-8")
calibration.CONFIGS = smaller
main(["calibrate", "-q"])
"""

WHERE = """\
import bnbench, runner
from bnbench import RunBuilder, RunManager, dataset, load, network, run
print(runner.__file__)
"""


class Environment:
    """A fresh environment, and a folder outside the repository in which its commands run."""

    def __init__(self, place: Path) -> None:
        self.programs, self.folder = place / "environment/bin", place / "folder"
        subprocess.run([sys.executable, "-m", "venv", str(place / "environment")], check=True)
        (self.folder / "experiments").mkdir(parents=True)
        (self.folder / "experiments/__init__.py").write_text("MINE = True\n")
        (self.folder / "runner.py").write_text("MINE = True\n")

    def call(self, program: str, *arguments: str | Path, below: str = ".", shown: str = "") -> str:
        """Run a program of the environment; returns what it prints. It must end with 0."""
        print("$", shown or " ".join([program, *map(str, arguments)]), flush=True)
        hidden = ("PYTHONPATH", "BNBENCH_")  # nothing of the repository, and no data folder
        variables = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
        variables["PATH"] = f"{self.programs}{os.pathsep}{variables['PATH']}"
        began = monotonic()
        done = subprocess.run(
            [self.programs / program, *arguments],
            cwd=self.folder / below,
            env=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        print(f"  exit code {done.returncode}, {monotonic() - began:.0f} s", flush=True)
        if done.returncode:
            sys.exit(done.stdout)
        return done.stdout


def install(environment: Environment, dist: Path) -> None:
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    environment.call("python", *pip, "build", "mypy")
    environment.call("python", "-m", "build", "--outdir", dist, ROOT)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    print(f"{sdist.name}, {wheel.name}")
    environment.call("python", *pip, wheel)


def use(environment: Environment) -> None:
    found = Path(environment.call("python", "-c", WHERE).strip())
    site = environment.programs.parent / "lib"
    assert found.is_relative_to(site), found
    assert found.parts[-3:] == ("site-packages", "runner", "__init__.py"), found
    print(environment.call("python", "-m", "bnbench", "--version").strip())
    print(environment.call("bnbench", "run", "quickstart", "-q").strip())
    environment.call("bnbench", "claims", "run", *CLAIMS, "--budget", "smoke", "-q")
    print(environment.call("python", "-c", CALIBRATE, shown="bnbench calibrate (three comparisons)").strip())
    environment.call("bnbench", "report", "results/quickstart")
    environment.call("bnbench", "init", "x")
    environment.call("bnbench", "run", "study.yaml", "-q", below="x")
    environment.call("mypy", "--strict", "my_network.py", below="x")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="bnbench-") as place:
        environment = Environment(Path(place).resolve())
        install(environment, Path(place) / "dist")
        use(environment)
    print(f"the package works with Python {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
