"""Plain, accessible HTML: sections, tables, figures and the page around them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1c2329; line-height: 1.5;
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main, header, footer, nav { max-width: 72rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.35rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid #d5dbe0; }
h3 { font-size: 1.08rem; margin: 1.5rem 0 .4rem; }
p, ul, dl { max-width: 46rem; margin: .4rem 0 .8rem; }
dt { font-weight: 600; }
dd { margin: 0 0 .4rem; }
a { color: #0b5a8a; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; }
.lead { color: #4a555e; }
.notice, .warning { border-left: .35rem solid #0072b2; background: #eef5fa; padding: .6rem .9rem;
  margin: .8rem 0; max-width: none; }
.warning { border-color: #d55e00; background: #fdf3ec; }
nav ul { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; list-style: none; padding: 0; max-width: none; }
.scroll { overflow-x: auto; margin: .6rem 0 1rem; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .2rem 0 .35rem; }
caption span { position: sticky; left: 0; display: inline-block; max-width: calc(100vw - 2rem); }
th, td { padding: .28rem .7rem .28rem 0; text-align: right; vertical-align: top;
  border-bottom: 1px solid #e3e8ec; }
th { font-weight: 600; text-align: right; }
thead th { border-bottom: 2px solid #9aa5ae; vertical-align: bottom; }
th:first-child, td:first-child, .text th, .text td { text-align: left; }
tbody th { font-weight: 500; min-width: 7rem; }
td { white-space: nowrap; }
.text td { white-space: normal; overflow-wrap: anywhere; }
figure { margin: 0 0 1rem; }
figure img { width: 100%; height: auto; display: block; }
figcaption { font-size: .88rem; color: #4a555e; max-width: 46rem; margin-top: .3rem; }
.grid { display: grid; gap: 1.2rem; margin: .6rem 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); }
.grid.narrow { grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.solo { max-width: 44rem; }
.strip { display: grid; gap: .5rem; grid-template-columns: repeat(2, 1fr); max-width: 62rem; }
.strip figcaption { font-size: .82rem; line-height: 1.3; }
.strip img { border-radius: 2px; }
.pixels img { image-rendering: pixelated; }
.missing { aspect-ratio: 1; border: 1px dashed #9aa5ae; border-radius: 2px; display: flex; align-items: center;
  justify-content: center; color: #4a555e; font-size: .82rem; text-align: center; padding: .3rem; }
details { margin: .6rem 0; }
summary { cursor: pointer; font-weight: 500; }
pre { background: #f4f6f8; padding: .7rem; overflow-x: auto; font-size: .85rem; }
footer { color: #4a555e; font-size: .88rem; margin: 3rem auto 2rem; }
@media (min-width: 40rem) { .strip { grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); } }
@media print { nav { display: none; } h2 { break-after: avoid; } figure { break-inside: avoid; } }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading that the table of contents lists."""

    anchor: str
    """Id of the heading; unique on the page."""
    title: str
    html: str
    """The content; a section whose content is empty is left out."""


def text(value: Any) -> str:
    """Give a value as HTML text."""
    return escape(str(value))


def paragraph(*sentences: str, kind: str = "") -> str:
    """Make a paragraph of plain text; `kind` is a class of the style sheet."""
    attribute = f' class="{kind}"' if kind else ""
    return f"<p{attribute}>{text(' '.join(sentences))}</p>"


def heading(title: str) -> str:
    """Make a heading inside a section."""
    return f"<h3>{text(title)}</h3>"


def items(lines: Iterable[str]) -> str:
    """Make a list of plain-text lines."""
    return "<ul>" + "".join(f"<li>{text(line)}</li>" for line in lines) + "</ul>"


def definitions(terms: Iterable[tuple[str, str]]) -> str:
    """Make a list of names, each with what is said about it."""
    return "<dl>" + "".join(f"<dt>{text(name)}</dt><dd>{text(words)}</dd>" for name, words in terms) + "</dl>"


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], *, caption: str, words: bool = False) -> str:
    """Make a table whose first column names its rows.

    Parameters
    ----------
    header : one label per column
    rows : cells as shown (strings, or numbers already rounded)
    caption : what the table shows
    words : cells are text, aligned to the left

    Returns
    -------
    HTML; empty without rows
    """
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{text(label)}</th>' for label in header)
    body = "".join(
        f'<tr><th scope="row">{text(first)}</th>'
        + "".join(f"<td>{text(cell)}</td>" for cell in rest)
        + "</tr>"
        for first, *rest in rows
    )
    return (
        f'<div class="scroll" role="group" tabindex="0" aria-label="{text(caption)}">'
        f"<table{' class=text' if words else ''}><caption><span>{text(caption)}</span></caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure(uri: str, *, alt: str, caption: str = "") -> str:
    """Make a picture with its alternative text and, where given, a caption."""
    note = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{uri}" alt="{text(alt)}" loading="lazy">{note}</figure>'


def grid(parts: Iterable[str], *, kind: str = "grid") -> str:
    """Lay parts side by side as far as the screen allows."""
    content = "".join(part for part in parts if part)
    return f'<div class="{kind}">{content}</div>' if content else ""


def folded(title: str, html: str) -> str:
    """Hide content behind a title that opens it."""
    return f"<details><summary>{text(title)}</summary>{html}</details>" if html else ""


def document(title: str, *, head: str, sections: Sequence[Section], foot: str) -> str:
    """Make the whole page: first screen, table of contents, sections; nothing is loaded from elsewhere."""
    shown = [section for section in sections if section.html]
    contents = "".join(f'<li><a href="#{text(part.anchor)}">{text(part.title)}</a></li>' for part in shown)
    body = "".join(
        f'<section aria-labelledby="{text(part.anchor)}">'
        f'<h2 id="{text(part.anchor)}">{text(part.title)}</h2>{part.html}</section>'
        for part in shown
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>"
        '<a class="skip" href="#content">Skip to content</a>'
        f"<header><h1>{text(title)}</h1>{head}</header>"
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>'
        f'<main id="content">{body}</main><footer>{foot}</footer></body></html>\n'
    )


def place_name(lon: float, lat: float, digits: int = 2) -> str:
    """Show a place: 47.31° N, 12.05° E."""
    north, east = "N" if lat >= 0 else "S", "E" if lon >= 0 else "W"
    return f"{abs(lat):.{digits}f}° {north}, {abs(lon):.{digits}f}° {east}"


def count(value: float) -> str:
    """Show a count with thin separators: 254,403."""
    return f"{int(value):,}"


def share(part: float, whole: float) -> str:
    """Show a part of a whole in percent; a dash without a whole."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


def number(value: float, digits: int = 2) -> str:
    """Show a number; a dash where it is missing."""
    return "–" if value is None or value != value else f"{value:.{digits}f}"


def n_bytes(value: float) -> str:
    """Show an amount of storage in decimal units."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError
