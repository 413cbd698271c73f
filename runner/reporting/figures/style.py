"""How figures look: colours for colour-blind readers, one font, and the same bytes each time."""

import html
import io
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from runner.analysis.stats.intervals import mean_band
from runner.analysis.stats.values import Values
from runner.errors import UserError
from runner.storage.files import write_atomically

INK, RULE, PAPER = "#1f2328", "#d1d9e0", "#ffffff"
"""Text, grid and background."""

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#c2609a", "#b87f00", "#3d96cc")
"""Okabe and Ito's (2008). The last three are darker, so that each has a contrast of 3 on white and on near-black."""

BASELINE = "#7d838b"

PAGE_COLOURS = {INK: "ink", RULE: "rule", BASELINE: "baseline"}
PAGE_COLOURS |= {color: f"arm{n}" for n, color in enumerate(COLOURS)}
"""Colour → its variable in the page's style sheet, which sets it for light and for dark."""

WIDTH = 4.6
"""Width of one panel in inches: the width of a phone, or half a page."""

SETTINGS: dict[str, Any] = {
    # It comes with matplotlib, so it is the same everywhere.
    "font.family": ["DejaVu Sans"],
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "axes.titlecolor"), INK),
    **dict.fromkeys(("text.color", "xtick.color", "ytick.color"), INK),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    # A network may be called "a$b$".
    "text.parse_math": False,
    "svg.hashsalt": "bnbench",
    "pdf.fonttype": 42,
    "savefig.facecolor": PAPER,
}


@dataclass(frozen=True)
class Series:
    """How one arm is drawn. It is the same in every figure."""

    label: str
    color: str
    dash: Any
    marker: str

    def style(self, n: int) -> dict[str, Any]:
        """Arguments for matplotlib, with the number of runs in the legend."""
        label = f"{self.label} (n = {n})"
        return {"color": self.color, "linestyle": self.dash, "label": label}


def series(labels: Sequence[str], *, baseline_first: bool) -> tuple[Series, ...]:
    """A colour, a dash pattern and a marker for each arm. The baseline is grey and dashed."""
    dashes: tuple[Any, ...] = ("-", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
    markers = "s^Dv<>"
    found = [Series(labels[0], BASELINE, "--", "o")] if baseline_first else []
    for n, label in enumerate(labels[len(found) :]):
        dash = dashes[n // len(COLOURS) % len(dashes)]
        found.append(Series(label, COLOURS[n % len(COLOURS)], dash, markers[n % len(markers)]))
    return tuple(found)


Draw = Callable[[Axes], None]


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: a short title, its content in a sentence, how to draw it, and its height in inches."""

    title: str
    description: str
    draw: Draw
    height: float = 3.3


def settings(**more: Any) -> AbstractContextManager[None]:
    """Draw with `SETTINGS`, whatever a notebook has set."""
    return matplotlib.style.context(SETTINGS | more, after_reset=True)


def draw_mean(axes: Axes, x: Values, values: Values, alpha: float, **style: Any) -> None:
    """The mean of `values` [runs, readings], and its 95% band."""
    mean, low, high = mean_band(values)
    axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
    axes.plot(x, mean, **style)


def figure(panels: Sequence[Panel]) -> Figure:
    """The panels side by side, two in a row, with one legend below. Call it within `settings`."""
    columns = min(2, len(panels))
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    # Without pyplot nothing stays open, and the backend of a notebook stays as it is.
    whole = Figure(figsize=(WIDTH * columns, sum(heights)), layout="constrained")
    FigureCanvasAgg(whole)
    places = whole.subfigures(len(rows), columns, height_ratios=heights, squeeze=False).flat
    legend: dict[str, Any] = {}
    for panel, place in zip(panels, places, strict=False):
        # The title of the axes would begin where the tick labels end, and long names need the whole width.
        place.suptitle(fill(panel.title, 58), x=0.02, ha="left", size=9.5)
        axes = place.subplots()
        panel.draw(axes)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            legend[fill(label, 46)] = handle
    if legend:
        names = list(legend)
        longest = max(len(line) for name in names for line in name.splitlines())
        per_row = max(1, min(len(legend), int(columns * 58 / (longest + 8))))
        whole.legend(legend.values(), names, loc="outside lower left", ncols=per_row, fontsize=8.5)
        lines = sum(name.count("\n") + 1 for name in names)
        whole.set_figheight(sum(heights) + 0.2 * lines / per_row)
    return whole


def svg(panel: Panel, name: str) -> str:
    """The panel as an `<svg>` element for a page. It has the page's colours, searchable text, and ids of its own."""
    content = io.StringIO()
    with settings(**{"svg.fonttype": "none", "savefig.transparent": True}), warnings.catch_warnings():
        # The browser has fonts of its own.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure([panel]).savefig(content, format="svg", metadata={"Date": None})
    text = content.getvalue()
    head, _, body = text[text.index("<svg") :].strip().partition(">")
    head = re.sub(r' (width|height|version)="[^"]*"', "", head)
    # A style element would apply to the whole page.
    not_for_a_page = r"<metadata>.*?</metadata>|<defs>\s*<style.*?</style>\s*</defs>"
    body = re.sub(not_for_a_page, "", body, flags=re.DOTALL)
    body = re.sub(r"\s*\n\s*", "\n", body)
    body = re.sub(r'(?<= )(d|x|y|transform)="[^"]*"', _rounded, body)
    # The ids of a page's figures must differ.
    body = re.sub(r'(\bid="|\(#|href="#)', rf"\g<1>{name}-", body)
    for color, variable in PAGE_COLOURS.items():
        body = body.replace(color, f"var(--{variable})")
    body = body.replace("'DejaVu Sans'", "inherit")
    return f'{head} role="img" aria-label="{html.escape(panel.description)}">{body}'


def _rounded(coordinates: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", coordinates[0])


def save(panels: Sequence[Panel], path: Path) -> None:
    """Write the panels in the format of the file's ending. The same panels give the same bytes.

    Errors: UserError for an ending other than svg, pdf or png, and for a folder that does not exist.
    """
    style = path.suffix[1:].lower()
    undated: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
    if style not in undated:
        raise UserError(f"{path}: it must end in {', '.join(f'.{ending}' for ending in undated)}")
    if not path.parent.is_dir():
        raise UserError(f"{path}: its folder does not exist")
    content = io.BytesIO()
    with settings():
        figure(panels).savefig(content, format=style, dpi=200, metadata=undated[style])
    write_atomically(path, content.getvalue())
