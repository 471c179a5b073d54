"""A page as one HTML file: style and charts inside, no script, nothing from the network.

Every text is escaped here or in `svg`: documents come from files that anybody may have written. A content
security policy forbids scripts and requests besides.
"""

from html import escape

from voxport.benchmarks.reporting.page import Block, Chip, Entry, Facts, Notes, Page, Part, Section, Table, Text, Tile
from voxport.benchmarks.reporting.style import style_sheet
from voxport.benchmarks.reporting.svg import chart_html, chip_html

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'"
_WIDE = 34  # letters from which a column of text needs room


def page_html(page: Page) -> str:
    """The whole file."""
    links = "".join(f'<a href="#part{i}">{escape(part.kicker)}</a>' for i, part in enumerate(page.parts))
    nav = f"<nav>{links}</nav>" if len(page.parts) > 1 else ""
    parts = "".join(_part(part, number) for number, part in enumerate(page.parts))
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        f'<meta http-equiv=Content-Security-Policy content="{_POLICY}">'
        '<meta name=viewport content="width=device-width,initial-scale=1"><meta name=color-scheme content="light dark">'
        f"<title>{escape(page.title)}</title><style>{style_sheet()}</style></head>\n<body>"
        f"<header><h1>{escape(page.title)}</h1>{nav}</header>\n<main>{parts}</main>\n"
        f"<footer><p>{escape(page.footer)}</p></footer></body></html>\n"
    )


def _part(part: Part, number: int) -> str:
    tiles = f"<div class=tiles>{''.join(map(_tile, part.tiles))}</div>" if part.tiles else ""
    sections = "\n".join(map(_section, part.sections))
    return (
        f'<article class=part id="part{number}"><p class=kicker>{escape(part.kicker)}</p>'
        f"<h2>{escape(part.headline)}</h2>{tiles}\n{sections}</article>\n"
    )


def _tile(tile: Tile) -> str:
    detail = f"<small>{escape(tile.detail)}</small>" if tile.detail else ""
    return f'<div class="tile {tile.tone}"><b>{escape(tile.value)}</b><span>{escape(tile.label)}</span>{detail}</div>'


def _section(section: Section) -> str:
    body = "".join(map(_block, section.blocks))
    if section.folded:
        return f"<details><summary>{escape(section.title)}</summary>{body}</details>"
    return f"<section><h3>{escape(section.title)}</h3>{body}</section>"


def _block(block: Block) -> str:
    if isinstance(block, Table):
        return _table(block)
    if isinstance(block, Facts):
        return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in block.items) + "</dl>"
    if isinstance(block, Text):
        return f"<p>{escape(block.text)}</p>"
    if isinstance(block, Notes):
        return f"<ul class=notes>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"
    return chart_html(block)


def _table(table: Table) -> str:
    kinds = [_kind([row[column] for row in table.rows]) for column in range(len(table.columns))]
    head = "".join(f"<th{kind}>{escape(name)}</th>" for name, kind in zip(table.columns, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{_entry(entry)}</td>' for entry, kind in zip(row, kinds, strict=True))}</tr>"
        for row in table.rows
    )
    caption = f"<div class=caption>{escape(table.caption)}</div>" if table.caption else ""
    inside = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class=card>{caption}<div class=scroll>{inside}</div></div>"


def _kind(entries: list[Entry]) -> str:
    """The class of a column: numbers to the right, long texts with room."""
    texts = [entry for entry in entries if isinstance(entry, str)]
    filled = [text for text in texts if text and text != "n/a"]
    if len(texts) == len(entries) and any(texts) and all(text[0] in "0123456789+-−" for text in filled):
        return " class=n"
    return " class=w" if any(len(text) > _WIDE for text in texts) else ""


def _entry(entry: Entry) -> str:
    return chip_html(entry) if isinstance(entry, Chip) else escape(entry)
