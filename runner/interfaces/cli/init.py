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
    not given. No file is overwritten: a .gitignore that
    exists stays as it is.
    """
    existing = [folder / name for name in FILES if (folder / name).exists()]
    if faults := [f"{file}: this file exists; nothing was written" for file in existing if file.name != ".gitignore"]:
        raise UserError(*faults)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made: {error.strerror}; allowed: a folder, or a name that is free"
        ) from None
    written = [name for name in FILES if folder / name not in existing]
    for name in written:
        (folder / name).write_bytes((TEMPLATE / FILES[name]).read_bytes())
    click.echo(f"{folder}: {', '.join(written)}\n\nType next:")
    # A name that begins with - would be an option of cd.
    there = f"./{folder}" if str(folder).startswith("-") else str(folder)
    go = "" if folder == Path() else f"cd {shlex.quote(there)} && "
    click.echo(f"  {go}bnbench plan study.yaml\n  bnbench run study.yaml\n  bnbench report results/study")
