"""How figures look: one colour and marker per method, neutral inks that follow the page's theme."""

import html
import io
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

from pipeline.files import replacing, write_json
from pipeline.merging.methods import METHODS

DPI = 150  # of the PNGs
PAGE_WIDTH = 10.5  # inches, of a figure that fills the page's width
PANELS_PER_ROW = 4
ROW_GAP = 0.09  # inches above and below each row of panels

# Neutral inks. In the page each becomes the CSS variable of its name, so that figures stay
# readable on light and dark paper; nothing else may be drawn in these exact colours.
INK, MUTED, GRID = "#1f2830", "#5f6a74", "#d8dde2"
THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)"}

# Okabe and Ito's colours, https://jfly.uni-koeln.de/color/
SKY, BLUE, GREEN, ORANGE = "#56b4e9", "#0072b2", "#009e73", "#e69f00"
VERMILLION, PURPLE, GREY = "#d55e00", "#cc79a7", "#8c939a"
# Two more that differ from them in every kind of colour vision.
BROWN, MAGENTA = "#8c5523", "#aa3377"


@dataclass(frozen=True)
class Look:
    """A method's colour, marker and line, alike in all figures.

    A colour is a family's. Open: a variant of another method; dashed, where `dash` says no other.
    """

    colour: str
    marker: str
    open: bool = False
    dash: str = ""

    @property
    def css(self) -> str:
        """The colour as CSS."""
        return THEMED.get(self.colour, self.colour)

    @property
    def face(self) -> str:
        """The marker's filling."""
        return "none" if self.open else self.colour

    def line(self, **more: Any) -> dict[str, Any]:
        """Keywords of `Axes.plot`: hollow where the method is a variant."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "markerfacecolor": self.face,
            "linestyle": self.dash or ("--" if self.open else "-"),
            "linewidth": 1.4,
            "markersize": 5,
        } | more


LOOKS: dict[str, Look] = {
    "pretrained": Look(GREY, "o"),
    # Means and arithmetic
    "weight_average": Look(SKY, "v"),
    "task_arithmetic": Look(BLUE, "s"),
    "task_arithmetic_tuned": Look(BLUE, "D", open=True),
    # Entries of task vectors
    "ties": Look(PURPLE, "^"),
    "dare": Look(PURPLE, "<", dash=":"),
    "dare_ties": Look(PURPLE, "<", open=True),
    "breadcrumbs": Look(PURPLE, "8", dash="-."),
    "magmax": Look(PURPLE, ">"),
    "consensus_ta": Look(PURPLE, "H", open=True, dash="-."),
    "pcb": Look(PURPLE, "P", open=True, dash=":"),
    # Tensors as wholes
    "lines": Look(SKY, ">", open=True),
    "model_stock": Look(SKY, "p", dash="-."),
    "slerp": Look(SKY, "d", open=True, dash=":"),
    # Singular vectors, interference
    "tsv_m": Look(BROWN, "s"),
    "iso_c": Look(BROWN, "o", dash="-."),
    "iso_cts": Look(BROWN, "o", open=True),
    "wudi": Look(BROWN, "^", dash=":"),
    "awd": Look(BROWN, "v", open=True, dash="-."),
    # Statistics of images
    "fisher": Look(MAGENTA, "D", dash="-."),
    "regmean": Look(MAGENTA, "X"),
    "regmean_plus_plus": Look(MAGENTA, "P", open=True),
    # Learned coefficients
    "adamerging_taskwise": Look(ORANGE, "P"),
    "adamerging_taskwise_pp": Look(ORANGE, "X", open=True),
    "adamerging_blockwise": Look(GREEN, "p", open=True),
    "adamerging_layerwise": Look(GREEN, "h"),
    "adamerging_layerwise_pp": Look(VERMILLION, "*"),
    "adamerging_layerwise_awd": Look(VERMILLION, "h", open=True),
    # More than one model
    "tall_mask": Look(INK, "s", open=True, dash=":"),
    "emr": Look(INK, "^", open=True, dash="-."),
    "experts": Look(INK, "d", open=True),
}

_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GRID,
    "axes.grid": True,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "figure.autolayout": False,
    "figure.constrained_layout.use": False,  # but where a figure asks for it
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures look alike everywhere
    "font.size": 9,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "image.composite_image": False,  # each heat map is kept with the pixels that it has
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "text.color": INK,
    "xtick.color": GRID,
    "xtick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.color": GRID,
    "ytick.labelcolor": MUTED,
    "ytick.labelsize": 8.5,
}


@dataclass(frozen=True)
class Plot:
    """A figure with the words around it and the data in it."""

    name: str  # of its files
    figure: Figure
    caption: str  # what one sees, with units
    alt: str
    data: Any  # what is drawn, as JSON values


@contextmanager
def drawing() -> Iterator[None]:
    """Figures must be made and saved inside: the settings hold nowhere else."""
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # Of class names in other scripts: a browser has fonts for them.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        yield


def new_figure(width: float, height: float, **padding: Any) -> Figure:
    """An empty figure of that many inches whose parts are placed without overlap."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**padding))


def bare(axes: Axes) -> None:
    """Take away grid, ticks and frame: for heat maps."""
    axes.grid(False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def panel_grid(
    count: int, row_height: float, extra_height: float, labels: tuple[str, str]
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels with common axes, PANELS_PER_ROW a row; heights in inches.

    `labels`: of the horizontal and the vertical axis, written at the outer panels.
    """
    rows, columns = -(-count // PANELS_PER_ROW), min(PANELS_PER_ROW, count)
    figure = new_figure(PAGE_WIDTH, row_height * rows + extra_height, h_pad=ROW_GAP)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid.flat)
    for axes in panels[count:]:
        axes.remove()
    for axes in panels[:count]:
        axes.xaxis.set_tick_params(labelbottom=True)  # also above a gap in the last row
    for axes in panels[max(0, count - columns) : count]:
        axes.set_xlabel(labels[0])
    for axes in grid[:, 0]:
        axes.set_ylabel(labels[1])
    return figure, panels[:count]


def legend(
    figure: Figure,
    methods: Iterable[str],
    columns: int,
    extra: Sequence[Line2D] = (),
    lines: bool = True,
) -> None:
    """A legend of `methods` below everything, and of `extra` handles with their own labels.

    `lines`: whether the figure has lines, and not markers alone.
    """
    more = {"markersize": 6} | ({} if lines else {"linestyle": "none"})
    handles = [
        Line2D([], [], label=METHODS[method].title, **LOOKS[method].line(**more))
        for method in methods
    ]
    figure.legend(handles=[*handles, *extra], ncols=columns, loc="outside lower center")


def settle(figure: Figure) -> None:
    """Compute the layout once and keep it, rounded.

    The last digits of what the layout's solver finds differ from run to run, and would do so in
    the ids of the SVG.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
    figure.set_layout_engine(None)  # not "none", which has every file drawn twice
    for axes in figure.axes:
        axes.set_position(Bbox(axes.get_position(original=True).get_points().round(6)))


def save(plot: Plot, folder: Path) -> None:
    """Write the figure as PNG, and its data as JSON beside it."""
    save_png(plot.figure, folder / f"{plot.name}.png")
    write_json(folder / f"{plot.name}.json", plot.data)


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure on white, the same bytes for the same figure."""
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor="white", metadata={"Software": None})


def inline_svg(plot: Plot) -> str:
    """The figure as an `<svg>` element: transparent, in the page's font and inks."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # The salt makes ids reproducible, and different from those of the page's other figures.
    with matplotlib.rc_context({"svg.hashsalt": plot.name}):
        plot.figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r' id="[A-Za-z_.]+\d*_\d+"', "", svg)  # of groups; nothing refers to them
    svg = re.sub(r" ?font-family: [^;\"]*;?", "", svg)
    for colour, variable in THEMED.items():
        svg = svg.replace(colour, variable)
    # Points become the pixels of a screen, for the page to limit how far a figure shrinks.
    view = svg.split('viewBox="', 1)[1].split('"', 1)[0]
    width = float(view.split()[2]) * 4 / 3
    head = (
        f'<svg role="img" aria-label="{html.escape(plot.alt)}" viewBox="{view}"'
        f' style="--width: {width:.0f}px"'
    )
    return head + svg[svg.index(">") :]
