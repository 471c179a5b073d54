"""The report page: self-contained, whole, and deaf to what a hostile file says."""

import dataclasses
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.benchmarks.bench_documents import MODEL, gpu, latency, scale, served, train, write
from voxport.benchmarks.core.records import Accuracy, ReportError
from voxport.benchmarks.core.writing import write_json
from voxport.benchmarks.documents import read_document
from voxport.benchmarks.reporting.build import build_page
from voxport.benchmarks.reporting.html import page_html
from voxport.benchmarks.reporting.markdown import page_markdown
from voxport.benchmarks.reporting.page import Page
from voxport.benchmarks.reporting.sections.latency import headline, latency_part
from voxport.benchmarks.reporting.svg import make_axis, tick_text
from voxport.benchmarks.reporting.wording import number
from voxport.benchmarks.stats.intervals import Interval
from voxport.cli.root import cli
from voxport.runtime.storage.serialization import encode

MADE: dict[str, Callable[[], Any]] = {"latency": latency, "train": train, "scale": scale, "gpu": gpu}
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>[x](javascript:alert(3))`|&lt;"
TAGS = set(
    "html head meta title style body header h1 nav a main article p h2 div b span small section h3 dl dt dd ul ol li "
    "figure figcaption svg line circle rect text g polyline table thead tbody tr th td details summary i footer".split()
)


class Seen(HTMLParser):
    """Every tag and attribute of a page, and its text; complains of what is not closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def page_of(*documents: Any, folder: Path) -> Page:
    return build_page([write(each, folder / f"{i}.json") for i, each in enumerate(documents)])


@pytest.mark.parametrize("kind", MADE)
def test_a_page_is_whole_and_asks_nothing_of_the_network(kind: str, tmp_path: Path) -> None:
    html = page_html(page_of(MADE[kind](), folder=tmp_path))
    seen = Seen(html)
    assert seen.open == []
    assert set(seen.tags) <= TAGS
    assert {name for name, _ in seen.attributes}.isdisjoint({"src", "srcset", "onload", "onclick", "action"})
    assert all(value.startswith("#") for name, value in seen.attributes if name == "href")
    assert not re.search(r"url\(|@import|https?://", html)
    assert "default-src 'none'" in html
    assert "svg" in seen.tags


def test_the_headline_and_its_figures_are_of_one_model_with_its_doubts() -> None:
    report = latency()
    fast = Interval(9.0, 8.0, 10.0, 0.95, 6)
    more = tuple(
        dataclasses.replace(row, backend="int8.onnx", speed_up=fast, verdict="faster")
        for row in report.rows
        if row.backend == MODEL
    )
    own = next(item for item in report.backends if item.spec.name == MODEL)
    other = dataclasses.replace(own, spec=dataclasses.replace(own.spec, name="int8.onnx"))
    judged = Accuracy("int8.onnx", 720, 614, 0.853, 0.42, 0.2, True, "720 utterances", verdict="undecided")
    report = dataclasses.replace(
        report, rows=(*report.rows, *more), backends=(*report.backends, other), accuracy=(judged,)
    )
    part = latency_part(report)
    assert part.headline.startswith("int8.onnx is 9.00 times as fast as eager PyTorch at batch 1, 128 frames")
    assert part.headline.endswith("its accuracy is 0.42 points lower, which may or may not be chance")
    assert [tile.label for tile in part.tiles[:2]] == ["int8.onnx, faster"] * 2
    certain = dataclasses.replace(report, accuracy=(dataclasses.replace(judged, verdict="passed"),))
    assert "chance" not in headline(certain)


def test_answers_are_shown_by_the_worst_cell(tmp_path: Path) -> None:
    report = latency()
    checks = tuple(
        dataclasses.replace(check, max_abs=error, same=error < 1e-3)
        for check, error in zip(report.answers, (1e-5, 0.5, 2e-5), strict=True)
    )
    text = page_markdown(page_of(dataclasses.replace(report, answers=checks), folder=tmp_path))
    (row,) = (line for line in text.splitlines() if line.startswith(f"| {MODEL} |") and "failed" in line)
    assert "5.0e-01" in row
    assert "1 × 400" in row


def test_a_servers_page_speaks_of_rates(tmp_path: Path) -> None:
    report = served(latency(), (30.0, 30.1, 29.9, 30.0, 30.05, 29.95))
    html = page_html(page_of(report, folder=tmp_path))
    assert "answers 1.50 times as many queries within" in headline(report)
    assert f"Server of {MODEL}, " in html
    assert "times as fast" not in html.lower().partition("how much higher a rate")[0]
    assert "each back end at the highest rate that it held" in html
    assert "Milliseconds of a call" not in html
    plain = page_html(page_of(latency(), folder=tmp_path))
    assert "Milliseconds of a call" in plain


def poisoned(value: Any, path: tuple[str, ...] = ()) -> Any:
    """`value` with every text replaced, but for those that only certain words may fill."""
    if isinstance(value, dict):
        return {key: poisoned(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [poisoned(item, path) for item in value]
    return HOSTILE if isinstance(value, str) and path[-1] != "kind" else value


def taken(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The most of `data` poisoned that the reader takes: what it refuses is put back, key by key."""
    result = dict(data)
    for key in data:
        changed = {**result, key: poisoned(data[key], (key,))}
        write_json(changed, path)
        try:
            read_document(path)
        except ReportError:
            changed = {**result, key: [_items(item, data, result, key, path) for item in data[key]]} if isinstance(
                data[key], list
            ) else {**result, key: data[key]}  # fmt: skip
        result = changed
    return result


def _items(item: Any, data: dict[str, Any], result: dict[str, Any], key: str, path: Path) -> Any:
    """An item of a list with those of its texts poisoned that may be."""
    if not isinstance(item, dict):
        return item
    found = dict(item)
    for name, value in item.items():
        changed = {**found, name: poisoned(value, (name,))}
        write_json({**result, key: [changed]}, path)
        try:
            read_document(path)
            found = changed
        except ReportError:
            continue
    return found


@pytest.mark.parametrize("kind", ["train", "scale", "gpu"])
def test_a_hostile_file_injects_nothing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "hostile.json"
    write_json(taken(json.loads(json.dumps(encode(MADE[kind]()))), path), path)
    check_harmless(path)


def test_a_hostile_latency_file_injects_nothing(tmp_path: Path) -> None:
    report = latency()
    text = json.dumps(encode(dataclasses.replace(report, blocks=report.blocks[:3], notes=(HOSTILE,))))
    for word in ("model.onnx", report.machine.cpu, report.machine.os, report.scenario, report.created):
        text = text.replace(json.dumps(word)[1:-1], json.dumps(HOSTILE)[1:-1])
    path = tmp_path / "hostile.json"
    path.write_text(text, encoding="utf-8")
    check_harmless(path)


def check_harmless(path: Path) -> None:
    page = build_page([path], HOSTILE)
    html = page_html(page)
    seen = Seen(html)
    assert set(seen.tags) <= TAGS
    assert all(not name.startswith("on") for name, _ in seen.attributes)
    assert any(HOSTILE in text for text in seen.texts)
    markdown = page_markdown(page)
    assert "<" not in markdown
    assert not re.search(r"(?<!\\)\[x(?<!\\)\]\(", markdown)


def test_documents_follow_each_other(tmp_path: Path) -> None:
    page = page_of(latency(), train(), scale(), gpu(), folder=tmp_path)
    html = page_html(page)
    places = [html.index(part.headline.replace("'", "&#x27;")) for part in page.parts]
    assert places == sorted(places)
    markdown = page_markdown(page)
    assert all(f"## {part.headline}"[:12] in markdown for part in page.parts)
    assert all(len(row.split("|")) > 2 for row in markdown.splitlines() if row.startswith("|"))


def test_the_headline_claims_no_more_than_the_interval() -> None:
    report = latency()
    assert headline(report).startswith("model.onnx is 1.80 times as fast as eager PyTorch")
    for verdict, words in (("slower", "is slower"), ("equivalent", "as fast as"), ("undecided", "cannot be told")):
        rows = tuple(dataclasses.replace(row, verdict=verdict) for row in report.rows)  # type: ignore[arg-type]
        assert words in headline(dataclasses.replace(report, rows=rows))
    rows = tuple(dataclasses.replace(row, verdict="answers differ") for row in report.rows)
    assert headline(dataclasses.replace(report, rows=rows)) == "No model could be compared with eager PyTorch"


def test_empty_documents_still_make_a_page(tmp_path: Path) -> None:
    bare = dataclasses.replace(latency(), rows=(), blocks=(), answers=(), notes=(), failures=())
    nothing = dataclasses.replace(gpu(), rows=(), blocks=(), backends=(), training=(), parity=(), ceilings=None)
    flat = dataclasses.replace(scale(), curves=())
    seen = Seen(page_html(page_of(bare, nothing, flat, folder=tmp_path)))
    assert seen.open == []


def test_the_command_writes_both(tmp_path: Path) -> None:
    source = write(train(), tmp_path / "train.json")
    out, markdown = tmp_path / "report.html", tmp_path / "report.md"
    result = CliRunner().invoke(cli, ["bench", "report", str(source), "-o", str(out), "--markdown", str(markdown)])
    assert result.exit_code == 0, result.output
    assert out.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "optimiser steps a second" in markdown.read_text(encoding="utf-8")


@pytest.mark.parametrize("values", [(1.0,), (0.0, 0.0), (1.0, 1000.0), (11.8, 15.7), (1e-9, 1e9), (-3.0, 8.0)])
@pytest.mark.parametrize("log", [None, True, False])
def test_axes_hold_their_values_and_mark_round_numbers(values: tuple[float, ...], log: bool | None) -> None:
    axis = make_axis(values, log)
    places = [axis.at(value) for value in values]
    assert all(0 <= place <= 100 for place in places)
    assert places == sorted(places)
    assert 1 <= len(axis.ticks) <= 8
    assert all(0 <= axis.at(tick) <= 100 for tick in axis.ticks)
    assert len({tick_text(tick) for tick in axis.ticks}) == len(axis.ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (math.inf, "n/a"), (0.0, "0"), (1.0, "1.00"), (0.0456, "0.0456"), (98.76, "98.8"),
     (1234.5, "1,234"), (8.6e-6, "8.60e-06")],
)  # fmt: skip
def test_numbers_are_short_and_exact_enough(value: float | None, text: str) -> None:
    assert number(value) == text
