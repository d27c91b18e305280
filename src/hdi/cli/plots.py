"""Pictures in a file: HTML that needs no network, or PNG. The libraries are imported when a picture is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from hdi.errors import RequestError

Kind = Literal["html", "png"]
_ENDINGS: dict[str, Kind] = {".html": "html", ".png": "png"}
#: What a PNG can be high at most, in pixels.
MAX_PIXELS = 60_000
DPI = 120
#: A page that leads nowhere: no logo to click, no server to send the figure to.
_OFFLINE = {"displaylogo": False, "showSendToCloud": False, "responsive": True}


def kind_of(path: str) -> Kind:
    """What a file's ending stands for. Raises RequestError for another one."""
    ending = Path(path).suffix.lower()
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    raise RequestError(
        f"{path}: a plot is written as {' or '.join(_ENDINGS)}",
        "Name the file with one of the two.",
    )


def blank(width: float, height: float) -> Any:
    """An empty figure of matplotlib, in inches. Raises RequestError where it would be higher than a PNG can be."""
    from matplotlib.figure import Figure

    if height * DPI > MAX_PIXELS:
        raise RequestError(
            f"a PNG of {round(height * DPI)} pixels in height is more than can be made",
            "Name fewer symbols with --symbols, or a file that ends in .html.",
        )
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str) -> None:
    """Write a figure of plotly as HTML, or one of matplotlib as PNG; the file is whole or not there.

    Raises RequestError for another ending, or where the file cannot be made.
    """
    from hdi.export import to_file

    kind = kind_of(path)
    with to_file(path) as file:
        if kind == "html":
            file.write(figure.to_html(include_plotlyjs=True, full_html=True, config=_OFFLINE).encode())
        else:
            figure.savefig(file, format="png", dpi=DPI)


__all__ = ["Kind", "blank", "kind_of", "save"]
