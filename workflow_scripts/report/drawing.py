"""Quiet, color-blind-safe pictures as data URIs; matplotlib without global state."""

import base64
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from PIL import Image

INK = "#1c2329"
GRAY = "#7d8790"
LIGHT = "#d5dbe0"
OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#B8A800")
"""Colors told apart with every common color vision (Okabe and Ito 2008; the yellow darkened for white paper)."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
SEASON_COLORS = ("#009E73", "#E69F00", "#D55E00", "#56B4E9", "#CC79A7", "#0072B2", "#7d8790", "#000000")
LINES = ("-", "--", ":", "-.")

STYLE = {
    "figure.constrained_layout.use": True,
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.labelcolor": INK,
    "axes.edgecolor": GRAY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e9edf0",
    "grid.linewidth": 0.7,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "svg.fonttype": "path",
    "svg.hashsalt": "report",
    "text.color": INK,
}
JPEG_FROM_PIXELS = 97
"""Pictures of pixels with a longer side are stored as JPEG, smaller ones without loss as PNG."""


@dataclass
class Picture:
    """A figure being drawn and, once the `with` block ends, its data URI."""

    axes: list[Axes]
    uri: str = field(default="")

    @property
    def ax(self) -> Axes:
        """The first panel."""
        return self.axes[0]


@contextmanager
def picture(
    width: float = 5.2, height: float = 2.9, *, n_rows: int = 1, n_columns: int = 1, raster: bool = False
) -> Iterator[Picture]:
    """Give empty panels to draw in; the picture is encoded when the block ends.

    Parameters
    ----------
    width, height : inches; on a page it fills its column
    n_rows, n_columns : panels
    raster : encode as PNG, for pictures of many points
    """
    with mpl.rc_context(STYLE):
        canvas = Figure(figsize=(width, height))
        axes = canvas.subplots(n_rows, n_columns, squeeze=False)
        drawn = Picture(axes=list(axes.ravel()))
        yield drawn
        buffer = io.BytesIO()
        if raster:
            canvas.savefig(buffer, format="png", dpi=160)
            drawn.uri = _shrunk_png(buffer)
        else:
            canvas.savefig(buffer, format="svg", metadata={"Date": None})
            drawn.uri = _uri(buffer.getvalue(), "image/svg+xml")


def pixels_uri(rgb: np.ndarray, *, longest: int) -> str:
    """Encode an image of pixels, at most `longest` pixels wide.

    Parameters
    ----------
    rgb : uint8 array (y, x, 3)
    """
    image = Image.fromarray(rgb)
    side = max(image.size)
    if side > longest:
        step = side / longest
        image = image.resize(tuple(round(n / step) for n in image.size), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if max(image.size) >= JPEG_FROM_PIXELS:
        image.save(buffer, format="jpeg", quality=86)
        return _uri(buffer.getvalue(), "image/jpeg")
    image.save(buffer, format="png", optimize=True)
    return _uri(buffer.getvalue(), "image/png")


def season_color(season: str, seasons: Sequence[str]) -> str:
    """Give a season its color, by its place in the dataset's list."""
    return SEASON_COLORS[list(seasons).index(season) % len(SEASON_COLORS)]


def date_axis(ax: Axes) -> None:
    """Label an axis of dates sparsely: years, and months between them."""
    locator = AutoDateLocator(minticks=3, maxticks=7)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))


def legend_below(ax: Axes, *, n_columns: int = 4) -> None:
    """Put the legend under all panels, where it hides nothing; on a narrow one in several rows."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.figure.legend(
            handles, labels, loc="outside lower left", ncols=n_columns, handlelength=1.4, columnspacing=1.2
        )


def _shrunk_png(buffer: io.BytesIO) -> str:
    """Reduce a PNG of few colors to a palette."""
    small = io.BytesIO()
    Image.open(buffer).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(
        small, format="png", optimize=True
    )
    return _uri(small.getvalue(), "image/png")


def _uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
