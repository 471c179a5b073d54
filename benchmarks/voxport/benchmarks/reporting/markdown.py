"""A page as Markdown: headlines, tables and notes. Charts are left out, since the tables hold their figures."""

from voxport.benchmarks.reporting.page import Block, Chip, Entry, Facts, Notes, Page, Part, Table, Text

_SIGNS = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}


def page_markdown(page: Page) -> str:
    """The whole file."""
    lines = [f"# {plain(page.title)}", ""]
    for part in page.parts:
        lines += _part(part)
    return "\n".join([*lines, plain(page.footer)]) + "\n"


def plain(text: str) -> str:
    """`text` in one line, with nothing in it that Markdown or HTML would take for its own."""
    for sign in "\\`*_[]|#~":
        text = text.replace(sign, f"\\{sign}")
    return " ".join("".join(_SIGNS.get(letter, letter) for letter in text).split())


def _part(part: Part) -> list[str]:
    lines = [f"## {plain(part.headline)}", "", plain(part.kicker), ""]
    lines += [f"- **{plain(tile.value)}** {plain(tile.label)}{_detail(tile.detail)}" for tile in part.tiles]
    for section in part.sections:
        blocks = [line for block in section.blocks for line in _block(block)]
        if blocks:
            lines += ["", f"### {plain(section.title)}", "", *blocks]
    return [*lines, ""]


def _detail(text: str) -> str:
    return f" ({plain(text)})" if text else ""


def _block(block: Block) -> list[str]:
    if isinstance(block, Table):
        caption = [plain(block.caption), ""] if block.caption else []
        head = f"| {' | '.join(map(plain, block.columns))} |"
        rows = [f"| {' | '.join(map(_entry, row))} |" for row in block.rows]
        return [*caption, head, "|" + "---|" * len(block.columns), *rows, ""]
    if isinstance(block, Facts):
        return [*(f"- {plain(name)}: {plain(value)}" for name, value in block.items), ""]
    if isinstance(block, Text):
        return [plain(block.text), ""]
    if isinstance(block, Notes):
        return [*(f"- {plain(item)}" for item in block.items), ""]
    return []


def _entry(entry: Entry) -> str:
    return plain(entry.text if isinstance(entry, Chip) else entry)
