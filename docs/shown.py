"""Write what commands print into the pages that show it: `python -m docs.shown`.

In a page, a block ```sh with one command, and directly after it a block without a language, are a command and its
output. The commands read committed tables, so they train nothing and take seconds.
"""

import os
import re
import shlex
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from click.testing import CliRunner

from runner.interfaces.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs/questions.md", ROOT / "docs/anyones-table.md"]
SHOWN = re.compile(r"^```sh\nbnbench ([^\n]*)\n```\n\n```\n(.*?)\n?```$", re.MULTILINE | re.DOTALL)


def printed(command: str) -> str:
    """What `bnbench COMMAND` prints in a pipe. Errors: SystemExit where it fails."""
    os.environ.pop("COLUMNS", None)
    with chdir(ROOT):
        done = CliRunner().invoke(main, shlex.split(command))
    if done.exit_code:
        raise SystemExit(f"bnbench {command}: {done.output}")
    return "\n".join(line.rstrip() for line in done.stdout.strip().splitlines())


def filled(text: str, output: Callable[[str], str] = printed) -> str:
    """A page with the output of each of its commands."""
    return SHOWN.sub(lambda found: f"```sh\nbnbench {found[1]}\n```\n\n```\n{output(found[1])}\n```", text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")
