"""A plan as an SVG or PNG picture, drawn by matplotlib, which the extra `draw` brings."""

import textwrap
import warnings
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

from cloudops_prefect.cli.layout import Place, places
from cloudops_prefect.cli.picture_text import FILLS, caption, critical_edges
from cloudops_prefect.errors import ExecutionError

if TYPE_CHECKING:
    from cloudops_prefect.cli.picture import Picture

_COLUMN, _ROW = 2.9, 0.8
_WIDTH, _HEIGHT = 2.3, 0.56
_MARGIN, _BELOW_TITLE = 0.3, 0.28
_TITLE_LINE, _TITLE_LETTER = 0.2, 0.105
_LETTERS = 29
_DPI = 110
_INK, _EDGE, _CRITICAL = "#222222", "#9aa5b1", "#d9480f"


def draw(picture: "Picture", kind: Literal["svg", "png"]) -> bytes:
    """Returns the picture as the content of a file.

    Raises:
        ExecutionError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ExecutionError(
            f"{kind} pictures need matplotlib, which the extra `draw` brings: "
            "pip install matplotlib; --format mermaid and --format dot do without"
        ) from None
    where = places(picture, _COLUMN / _ROW)
    columns = 1 + max(place.column for place in where.values())
    rows = 1 + max(place.row for place in where.values())
    title = _title_lines(picture, columns * _COLUMN)
    top = len(title) * _TITLE_LINE + _BELOW_TITLE
    size = (columns * _COLUMN, top + rows * _ROW)
    figure: Any = Figure(figsize=(size[0] + 2 * _MARGIN, size[1] + 2 * _MARGIN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(-_MARGIN, size[0] + _MARGIN)
    # The commands' places count from below the title.
    axes.set_ylim(size[1] - top + _MARGIN, -top - _MARGIN)
    axes.axis("off")
    _draw_title(axes, title, top)
    _draw_edges(axes, picture, where)
    for index, place in where.items():
        _draw_box(axes, picture, index, place)
    return _saved(figure, kind)


def _saved(figure: Any, kind: str) -> bytes:
    file = BytesIO()
    # A name may have letters that the font lacks: a box in their place says as much as a warning.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=_DPI, facecolor="white", metadata=metadata)
    return file.getvalue()


def _title_lines(picture: "Picture", width: float) -> list[str]:
    letters = int(width / _TITLE_LETTER)
    return textwrap.wrap(f"{picture.title} ({picture.subtitle})", letters)


def _draw_title(axes: Any, lines: list[str], top: float) -> None:
    text = "\n".join(lines)
    style = {"fontsize": 12, "weight": "bold", "color": _INK, "va": "top", "linespacing": 1.1}
    axes.text(0.1, -top, text, parse_math=False, **style)


def _draw_box(axes: Any, picture: "Picture", index: int, place: Place) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = _centre(place)
    critical = index in picture.critical_path
    box = FancyBboxPatch(
        (x - _WIDTH / 2, y - _HEIGHT / 2),
        _WIDTH,
        _HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.09",
        facecolor=FILLS[picture.status(index)],
        edgecolor=_CRITICAL if critical else "#7b8794",
        linewidth=2 if critical else 0.9,
        zorder=2,
    )
    axes.add_patch(box)
    name, *state = caption(picture, index)
    shown = textwrap.wrap(name, _LETTERS, max_lines=1 if state else 2, placeholder="…") or [name]
    text = "\n".join([*shown, *state])
    axes.text(
        x, y, text, fontsize=9, ha="center", va="center", color=_INK, zorder=3, parse_math=False
    )


def _draw_edges(axes: Any, picture: "Picture", where: dict[int, Place]) -> None:
    critical = critical_edges(picture)
    for before, after in picture.graph.edges:
        _draw_edge(axes, where[before], where[after], critical=(before, after) in critical)


def _draw_edge(axes: Any, before: Place, after: Place, *, critical: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    (x1, y1), (x2, y2) = _centre(before), _centre(after)
    if before.band == after.band:
        side = 1 if x2 > x1 else -1
        x1, x2 = x1 + side * _WIDTH / 2, x2 - side * _WIDTH / 2
        bend = (x2 - x1) / 2
        points = [(x1, y1), (x1 + bend, y1), (x2 - bend, y2), (x2, y2)]
    else:
        y1, y2 = y1 + _HEIGHT / 2, y2 - _HEIGHT / 2
        bend = (y2 - y1) / 2
        points = [(x1, y1), (x1, y1 + bend), (x2, y2 - bend), (x2, y2)]
    path = Path(points, [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4])
    arrow = FancyArrowPatch(
        path=path,
        arrowstyle="-|>,head_length=4,head_width=2",
        color=_CRITICAL if critical else _EDGE,
        linewidth=2 if critical else 0.9,
        zorder=1,
    )
    axes.add_patch(arrow)


def _centre(place: Place) -> tuple[float, float]:
    return (place.column + 0.5) * _COLUMN, (place.row + 0.5) * _ROW
