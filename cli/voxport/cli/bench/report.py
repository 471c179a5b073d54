"""`voxport bench report`: measurements as a page that a person understands at a glance."""

from pathlib import Path

import click

from voxport.cli.bench.common import check_output
from voxport.cli.common import FILE_PATH, emit_json, example, json_option


@click.command(
    "report",
    epilog=example(
        """
        voxport bench report latency.json -o report.html
        voxport bench report latency.json train.json scale.json -o report.html --markdown report.md
        """
    ),
)
@click.argument("results", nargs=-1, required=True, metavar="RESULT.json...", type=FILE_PATH)
@click.option("-o", "--output", type=FILE_PATH, help="HTML file to write, self-contained.")
@click.option("--markdown", type=FILE_PATH, help="Also write the page as Markdown, without charts.")
@click.option("--title", default="", show_default=False, help="Heading of the page.")
@json_option
def report_command(
    results: tuple[Path, ...], output: Path | None, markdown: Path | None, title: str, as_json: bool
) -> None:
    """Make one page of documents that `voxport bench latency`, `train`, `scale`, `gpu` and `conditions` wrote.

    The HTML file holds its style and charts itself, asks nothing of the network and runs no script; it follows the
    reader's light or dark setting, fits a phone, and prints. Without -o and --markdown, Markdown goes to stdout;
    --json says there which files were written.
    """
    from voxport.benchmarks.core.writing import write_text
    from voxport.benchmarks.reporting.build import build_page
    from voxport.benchmarks.reporting.html import page_html
    from voxport.benchmarks.reporting.markdown import page_markdown

    check_output("--output", output)
    check_output("--markdown", markdown)
    page = build_page(results, title)
    written = [(path, write) for path, write in ((output, page_html), (markdown, page_markdown)) if path is not None]
    for path, write in written:
        write_text(write(page), path)
    if as_json:
        emit_json({"results": [str(path) for path in results], "written": [str(path) for path, _ in written]})
    elif not written:
        click.echo(page_markdown(page), nl=False)
    else:
        for path, _ in written:
            click.echo(f"wrote {path}")
