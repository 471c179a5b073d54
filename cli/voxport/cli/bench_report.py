"""`voxport bench report`: measurements as a page that a person understands at a glance."""

from pathlib import Path

import click

from voxport.cli.bench_common import check_output
from voxport.cli.common import example


@click.command(
    "report",
    epilog=example(
        """
        voxport bench report latency.json -o report.html
        voxport bench report latency.json train.json scale.json -o report.html --markdown report.md
        """
    ),
)
@click.argument("results", nargs=-1, required=True, metavar="RESULT.json...", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page, one self-contained HTML file.")
@click.option("--markdown", type=click.Path(path_type=Path), help="The same as Markdown, without charts.")
@click.option("--title", default="", help="The page's heading.")
def report_command(results: tuple[Path, ...], output: Path | None, markdown: Path | None, title: str) -> None:
    """Make one page of documents that `voxport bench latency`, `train`, `scale` and `gpu` wrote.

    The HTML file holds its style and charts itself, asks nothing of the network and runs no script; it follows the
    reader's light or dark setting, fits a phone, and prints. Without -o and --markdown, Markdown goes to stdout.
    """
    from voxport.benchmarks.page_build import build_page
    from voxport.benchmarks.page_html import page_html
    from voxport.benchmarks.page_markdown import page_markdown
    from voxport.benchmarks.writing import write_text

    check_output("--output", output)
    check_output("--markdown", markdown)
    page = build_page(results, title)
    if output is None and markdown is None:
        click.echo(page_markdown(page), nl=False)
    for path, write in ((output, page_html), (markdown, page_markdown)):
        if path is not None:
            write_text(write(page), path)
            click.echo(f"wrote {path}")
