"""How the pictures look: colours that colour-blind eyes tell apart, one font, and the same bytes each time."""

from __future__ import annotations

import html
import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from runner.errors import UserError
from runner.storage.files import write_atomically

INK, RULE, PAPER = "#1f2328", "#d1d9e0", "#ffffff"
"""Text, grid and background."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2609a", "#b87f00", "#3d96cc")
"""Okabe & Ito's (2008), the last three darker, so that each has a contrast of 3 on white and on near-black."""

BASELINE = "#7d838b"

PAGE_COLOURS = {INK: "ink", RULE: "rule", BASELINE: "baseline"} | {color: f"arm{n}" for n, color in enumerate(COLOURS)}
"""What a page calls them: its style sheet has them for light and for dark."""

WIDTH = 4.6
"""Inches of one panel: a phone's width, half a page's."""

SETTINGS: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with matplotlib: the same letters everywhere
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "text.parse_math": False,  # a network may be called "a$b$"
    "svg.hashsalt": "bnbench",
    "pdf.fonttype": 42,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Series:
    """How one arm is drawn, the same in every picture."""

    label: str
    color: str
    dash: Any
    marker: str


def series(labels: Sequence[str], *, baseline_first: bool) -> tuple[Series, ...]:
    """Told apart by colour, dashes and marker; the baseline is grey and dashed."""
    dashes: tuple[Any, ...] = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    markers = "s^Dv<>"
    found = []
    for index, label in enumerate(labels):
        if index == 0 and baseline_first:
            found.append(Series(label, BASELINE, "--", "o"))
        else:
            n = index - baseline_first
            dash = dashes[n // len(COLOURS) % len(dashes)]
            found.append(Series(label, COLOURS[n % len(COLOURS)], dash, markers[n % len(markers)]))
    return tuple(found)


Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Panel:
    """One picture: what it shows in a few words, what there is to see in a sentence, and how to draw it."""

    title: str
    description: str
    draw: Draw
    height: float = 3.3


@contextmanager
def settings(**more: Any) -> Iterator[None]:
    """Draw as `SETTINGS` say, whatever a notebook has set."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in {**SETTINGS, **more}.items():
            matplotlib.rcParams[name] = value  # type: ignore[index]
        yield


def figure(panels: Sequence[Panel]) -> Figure:
    """The panels side by side, two in a row, with one legend below; to be called within `settings`."""
    columns = min(2, len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    # A canvas of its own, not pyplot's: nothing is left open, and no notebook's backend is touched.
    found = Figure(figsize=(WIDTH * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(found)
    places = found.subfigures(len(rows), columns, height_ratios=heights, squeeze=False).flat
    legend: dict[str, Any] = {}
    for panel, place in zip(panels, places, strict=False):
        # Not the axes' title: it would begin where the tick labels end, and long names need the whole width.
        place.suptitle(textwrap.fill(panel.title, 58), x=0.02, ha="left", size=9.5)
        axes = place.subplots()
        panel.draw(axes)
        handles, labels = axes.get_legend_handles_labels()
        legend |= {wrapped(label): handle for label, handle in zip(labels, handles, strict=True)}
    if legend:
        longest = max(len(line) for label in legend for line in label.splitlines())
        per_row = max(1, min(len(legend), int(columns * 58 / (longest + 8))))
        found.legend(legend.values(), legend.keys(), loc="outside lower left", ncols=per_row, fontsize=8.5)
        found.set_figheight(sum(heights) + 0.2 * sum(label.count("\n") + 1 for label in legend) / per_row)
    return found


def svg(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element to stand in a page: its colours the page's, its text text, its ids its own."""
    content = io.StringIO()
    with settings(**{"svg.fonttype": "none", "savefig.transparent": True}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the reader's browser writes the letters
        figure([panel]).savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    text = text[text.index("<svg") :].strip()
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(
        r"<defs>\s*<style.*?</style>\s*</defs>", "", body, count=1, flags=re.DOTALL
    )  # would be all the page's
    body = re.sub(r'(?<= )(d|x|y|transform)="[^"]*"', lambda found: _short(found[0]), re.sub(r"\s*\n\s*", "\n", body))
    body = re.sub(r'(\bid="|\(#|href="#)', rf"\g<1>{name}-", body)  # many pictures, one page
    for color, name in PAGE_COLOURS.items():
        body = body.replace(color, f"var(--{name})")
    body = body.replace("'DejaVu Sans'", "inherit")
    return f'{head} role="img" aria-label="{html.escape(panel.description)}">{body}'


def _short(path: str) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path)


def wrapped(label: str, width: int = 46) -> str:
    """A long name on several lines, whole."""
    return textwrap.fill(label, width)


def save(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels as the file's ending says. The same panels give the same bytes.

    Errors: UserError for another ending than svg, pdf or png.
    """
    style = path.suffix[1:].lower()
    undated: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    if style not in undated:
        raise UserError(f"{path}: no picture's name; it must end in {', '.join(f'.{ending}' for ending in undated)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist")
    content = io.BytesIO()
    with settings():
        figure(panels).savefig(content, format=style, dpi=200, metadata=undated[style])
    write_atomically(path, content.getvalue())
