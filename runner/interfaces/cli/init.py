"""`bnbench init`."""

import shlex
from pathlib import Path

import click

import runner
from runner.errors import UserError
from runner.interfaces.cli.options import PATH

TEMPLATE = Path(runner.__file__).parent.parent / "bnbench/template"

FILES = {"study.yaml": "study.yaml", "my_network.py": "my_network.py", ".gitignore": "gitignore"}
"""The files of a new study, and their names in `TEMPLATE`."""


@click.command()
@click.argument("folder", metavar="[DIR]", type=PATH, default=Path())
def init(folder: Path) -> None:
    """Write the files of a new study to DIR.

    The files are a config, a network of your own
    and a .gitignore. DIR is the current folder if it is
    not given. No file is overwritten.
    """
    if existing := [folder / name for name in FILES if (folder / name).exists()]:
        raise UserError(*(f"{file}: this file exists; nothing was written" for file in existing))
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in FILES.items():
        (folder / name).write_bytes((TEMPLATE / source).read_bytes())
    click.echo(f"{folder}: {', '.join(FILES)}\n\nType next:")
    go = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    click.echo(f"  {go}bnbench plan study.yaml\n  bnbench run study.yaml\n  bnbench report results/study")
