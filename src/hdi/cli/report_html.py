"""The quality report as one page: facts, and plots that need no network."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hdi.cli.charts_look import COLORS, GRID, INK, WARNING
from hdi.cli.report import NOT_MEASURED, facts
from hdi.model import ns_date

if TYPE_CHECKING:
    import polars as pl

    from hdi.reporting import Section

_STYLE = (
    f"body{{font:14px/1.5 Inter,'Segoe UI',Arial,sans-serif;color:{INK};margin:2rem auto;max-width:70rem;"
    "padding:0 1rem}"
    f"table{{border-collapse:collapse}}td,th{{padding:.2rem 1rem .2rem 0;text-align:left;vertical-align:top}}"
    f"section{{border-top:1px solid {GRID};margin-top:2rem}}.synthetic{{color:{WARNING};font-weight:bold}}"
)
_CONFIG = {"displaylogo": False, "showSendToCloud": False, "responsive": True}
_TITLE = "Quality of stored data"


def save(sections: Sequence[Section], path: str, store: str, *, synthetic: bool) -> None:
    """Write the page; the file is whole or not there. Raises RequestError where it cannot be made."""
    from hdi.export import to_file

    with to_file(path) as file:
        file.write(page(sections, store, synthetic=synthetic).encode())


def page(sections: Sequence[Section], store: str, *, synthetic: bool) -> str:
    """The page as text."""
    parts = [_summary(sections)]
    script: bool = True
    for section in sections:
        rows = "".join(f"<tr><th>{_safe(name)}</th><td>{_safe(value)}</td></tr>" for name, value in facts(section))
        name = section.subject.name + ("" if section.subject.job else " (no job)")
        plot = _plots(section).to_html(include_plotlyjs=script, full_html=False, config=_CONFIG)
        script = False
        parts.append(f"<section><h2>{_safe(name)}</h2><table>{rows}</table>{plot}</section>")
    warning = '<p class="synthetic">SYNTHETIC DATA: a rehearsal vendor made it.</p>' if synthetic else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_TITLE}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{_TITLE}</h1><p>Store: {_safe(store)}</p>{warning}{''.join(parts)}</body></html>"
    )


def _summary(sections: Sequence[Section]) -> str:
    heads = ("job", "coverage", "rows", "gaps", "rejects", "open discrepancies", "last run")
    rows = []
    for section in sections:
        share = NOT_MEASURED if section.share is None else f"{section.share} %"
        standing = sum(d["count"] for d in section.discrepancies if d["state"] == "open")
        cells = (
            section.subject.name, share, f"{section.stored:,}", str(sum(section.gaps.values())),
            str(sum(section.rejected.values())), str(standing) if standing or section.reconciled else NOT_MEASURED,
            section.last_result or "never",
        )  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{_safe(cell)}</td>" for cell in cells) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{''.join(rows)}</table>"


def _plots(section: Section) -> Any:
    """Coverage by month, rows and rejects by day, below each other."""
    from plotly import graph_objects as go
    from plotly.subplots import make_subplots

    titles = ("Days of trading held, by month (%)", "Rows by day", "Rejected rows by day")
    made = make_subplots(rows=3, cols=1, subplot_titles=titles, vertical_spacing=0.12)
    shown = [(month, days, held) for month, days, held in section.months if days]
    made.add_trace(
        go.Bar(
            x=[f"{month}-01" for month, _, _ in shown], y=[round(100 * held / days, 2) for _, days, held in shown],
            hovertext=[f"{month}: {held} of {days} days" for month, days, held in shown], hoverinfo="text",
            marker={"color": COLORS[0]},
        ),
        row=1, col=1,
    )  # fmt: skip
    for row, (frame, color) in enumerate(((section.rows, COLORS[0]), (section.rejects, WARNING)), 2):
        days, rows = _columns(frame)
        made.add_trace(go.Bar(x=days, y=rows, marker={"color": color}), row=row, col=1)
    made.update_yaxes(range=[0, 100], row=1, col=1)
    made.update_yaxes(rangemode="tozero", gridcolor=GRID)
    made.update_xaxes(type="date")
    made.update_layout(
        height=660, template="plotly_white", showlegend=False, font={"size": 12, "color": INK},
        margin={"l": 70, "r": 20, "t": 40, "b": 30},
    )  # fmt: skip
    return made


def _columns(frame: pl.DataFrame) -> tuple[list[str], list[int]]:
    return [str(ns_date(day)) for day in frame["day"]], frame["rows"].to_list()


def _safe(words: str) -> str:
    return html.escape(words)


__all__ = ["page", "save"]
