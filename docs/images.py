"""Make docs/images: `python docs/images.py`. Needs Chromium and `pip install playwright`.

The pages and the table are those of the committed tables of results/reference.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.text import Text

from runner.reporting.page.report import report

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs/images"
REPORTS = {"tutorial": "results/reference/tutorial", "gradients": "results/reference/claims/gradients"}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        for name, results in REPORTS.items():
            page = Path(folder) / f"{name}.html"
            page.write_text(report(ROOT / results), encoding="utf-8")
            for width in (1280, 390):
                for scheme in ("light", "dark"):
                    shoot(browser, page, IMAGES / f"report-{name}-{width}-{scheme}.png", width, scheme)
        shoot(browser, Path(folder) / "tutorial.html", IMAGES / "report.png", 1280, "light", height=1180)
        terminal = Path(folder) / "terminal.html"
        terminal.write_text(terminal_page(), encoding="utf-8")
        shoot(browser, terminal, IMAGES / "compare.png", 700, "dark", height=370)
        browser.close()


def shoot(browser: Any, page: Path, image: Path, width: int, scheme: str, height: int | None = None) -> None:
    """The whole page, or its first `height` pixels, with the network off."""
    context = browser.new_context(viewport={"width": width, "height": height or 900}, color_scheme=scheme, offline=True)
    tab = context.new_page()
    tab.goto(page.as_uri())
    content = tab.screenshot(full_page=height is None)
    context.close()
    picture = Image.open(io.BytesIO(content)).convert("RGB").quantize(128, dither=Image.Dither.NONE)
    picture.save(image, optimize=True)


def terminal_page() -> str:
    """What `bnbench compare` prints on a terminal with colours, as a page."""
    command = ["compare", "results/reference/notebook_mlp"]
    environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": "80"}
    done = subprocess.run(
        [sys.executable, "-m", "runner.interfaces.cli.main", *command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    console = Console(width=80, record=True, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(Text(f"$ bnbench {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(done.stdout))
    style = (
        "body{background:#12161b;color:#e6edf3;margin:1rem;font:14px/1.35 'DejaVu Sans Mono',monospace}pre{margin:0}"
    )
    code = console.export_html(inline_styles=True, code_format="<pre style='font:inherit'>{code}</pre>")
    return f"<!doctype html><meta charset='utf-8'><style>{style}</style>{code}"


if __name__ == "__main__":
    main()
