"""The service's page in a headless Chromium: a sound, its timeline, voices, errors, the end; by keyboard too."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, tone
from tests.scale.chromium import CHROMIUM, Page, browsing
from tests.scale.served import Served, running
from voxport.runtime import SpeakerIdentifier, Timeline
from voxport.scale.service.options import ServiceOptions

pytest.importorskip("uvicorn")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed; Debian: apt-get install chromium")


@pytest.fixture(scope="module")
def here(model: TinyModel) -> Iterator[Served]:
    with running(ServiceOptions(model.path, engine="local", port=0)) as served:
        yield served


@pytest.fixture(scope="module")
def page(here: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("chromium")
    devices = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browsing(folder, f"http://127.0.0.1:{here.port}/", *devices) as found:
        yield found


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three turns with silence between them."""
    path = tmp_path_factory.mktemp("talk") / "talk.wav"
    silence = np.zeros(16000, np.float32)
    turns = [
        tone(3, hertz=300, size=0.6),
        silence,
        tone(3, hertz=2500, size=0.1),
        silence,
        tone(3, hertz=300, size=0.6),
    ]
    soundfile.write(path, np.concatenate(turns), 16000)
    return path


def text(page: Page, selector: str) -> str:
    return str(page.do(f"document.querySelector({selector!r}).innerText"))


def rest(page: Page) -> None:
    """Wait until the page has nothing to do: what an earlier test began may take long on a busy machine."""
    page.until("!document.body.hasAttribute('aria-busy')")


def listen(page: Page, path: Path) -> None:
    rest(page)
    page.do("document.getElementById('whole').textContent = ''")
    page.choose("#file", path)
    page.until("document.getElementById('whole').textContent || document.getElementById('error').textContent")
    page.until("!document.body.hasAttribute('aria-busy')")


def test_a_sound_is_answered_and_divided_as_the_runtime_does(here: Served, page: Page, talk: Path) -> None:
    assert "5 speakers of its own, 16 kHz" in text(page, "#model")
    listen(page, talk)
    assert text(page, "#error") == ""
    identifier = SpeakerIdentifier.load(here.options.model)
    said, segments = identifier.identify(talk), Timeline(identifier).segments(talk)
    assert f"In all: {said.speaker}" in text(page, "#whole")
    rows = page.do("[...document.querySelectorAll('#rows tr')].map(row => [...row.cells].map(cell => cell.innerText))")
    assert [(row[2], row[3]) for row in rows] == [
        (each.speaker or "a stranger", f"{100 * each.probability:.0f} %") for each in segments
    ]
    turns = page.do("[...document.querySelectorAll('.turn')].map(e => [parseFloat(e.style.left), e.innerText])")
    assert [left for left, _ in turns] == pytest.approx(
        [100 * each.start_s / said.duration_s for each in segments], abs=0.01
    )
    drawn = page.do("(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v))"
                    "(document.getElementById('wave'))")  # fmt: skip
    assert drawn is True
    own = f"http://127.0.0.1:{here.port}/"
    assert [url for url in page.asked if not url.startswith((own, "data:", "about:"))] == []
    assert page.faults == []


def test_turns_are_reached_and_played_by_keyboard(page: Page, talk: Path) -> None:
    listen(page, talk)
    page.do("document.querySelector('.turn').focus()")
    labels = page.do("[...document.querySelectorAll('.turn')].map(each => each.getAttribute('aria-label'))")
    assert len(labels) >= 2
    for key, place in (("ArrowRight", 1), ("End", len(labels) - 1), ("ArrowLeft", len(labels) - 2)):
        page.press(key)
        assert page.do("document.activeElement.getAttribute('aria-label')") == labels[place]
    page.press("Enter")
    page.until("!document.getElementById('stop').disabled")
    assert page.do("!document.getElementById('head').hidden")
    page.do("document.getElementById('stop').click()")
    assert page.do("document.getElementById('stop').disabled")
    assert page.faults == []


def test_everything_has_a_name_for_a_screen_reader(page: Page, talk: Path) -> None:
    listen(page, talk)
    nodes = page.tell("Accessibility.getFullAXTree")["nodes"]
    roles = {"button", "textbox", "radio", "combobox", "table", "group", "alert", "status", "heading"}
    seen: dict[str, list[str]] = {}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if role in roles and not node.get("ignored"):
            seen.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "textbox", "radio", "combobox", "table"):
        assert seen.get(role), role
        assert all(seen[role]), (role, seen[role])
    assert "Who speaks when?" in seen["heading"]


def test_a_voice_is_enrolled_from_a_turn_found_again_and_removed(here: Served, page: Page, talk: Path) -> None:
    listen(page, talk)
    page.do("document.querySelector('#rows tr:nth-child(2) button:nth-of-type(2)').click()")
    assert page.do("document.activeElement.id") == "name"
    page.tell("Input.insertText", text="Ада / 1")
    page.press("Enter")
    page.until("document.getElementById('voices').children.length === 1")
    assert here.ask("GET", "/v1/voices").document["voices"] == [{"speaker": "Ада / 1", "utterances": 1}]
    page.do("document.querySelectorAll('input[name=among]')[1].click()")
    page.until("document.getElementById('whole').innerText.includes('Ада / 1')")
    page.until("!document.body.hasAttribute('aria-busy')")
    assert "cosine" in text(page, "#whole")
    page.do("setTimeout(() => document.querySelector('#voices button').click())")
    page.until("document.getElementById('voices').children.length === 0")
    assert here.ask("GET", "/v1/voices").document["voices"] == []
    page.do("document.querySelectorAll('input[name=among]')[0].click()")
    page.until("document.getElementById('whole').innerText.includes('In all')")
    assert page.faults == []


def test_an_answer_that_comes_late_is_not_that_of_the_next_sound(page: Page, talk: Path, tmp_path: Path) -> None:
    rest(page)
    (tmp_path / "notes.wav").write_text("This is no sound.")
    page.do(
        "window.slow = window.fetch, window.fetch = async (...asked) => "
        "{ const reply = await window.slow(...asked); await new Promise(done => setTimeout(done, 1000)); "
        "return reply; }"
    )
    page.choose("#file", talk)
    page.until("document.getElementById('result-title').textContent.includes('talk.wav')")
    page.until("document.body.hasAttribute('aria-busy')")
    page.do("window.fetch = window.slow")
    page.choose("#file", tmp_path / "notes.wav")
    page.until("document.getElementById('error').textContent")
    rest(page)
    assert text(page, "#error").startswith("The sound cannot be used: ")
    assert page.do("document.getElementById('result').hidden"), "the answer to the sound before"


def test_a_recording_is_sent_as_wav(page: Page) -> None:
    rest(page)
    page.do("document.getElementById('whole').textContent = ''")
    page.do("document.getElementById('record').click()")
    page.until("document.getElementById('record').getAttribute('aria-pressed') === 'true'")
    page.do("new Promise(done => setTimeout(done, 900))")
    page.do("document.getElementById('record').click()")
    page.until("document.getElementById('whole').textContent || document.getElementById('error').textContent")
    rest(page)
    assert text(page, "#error") == ""
    assert page.faults == []


def test_errors_are_told_in_the_services_words(page: Page, tmp_path: Path, talk: Path) -> None:
    (tmp_path / "notes.wav").write_text("This is no sound.")
    listen(page, tmp_path / "notes.wav")
    page.until("document.getElementById('error').textContent")
    assert text(page, "#error").startswith("The sound cannot be used: ")
    assert page.do("document.getElementById('error').getAttribute('role')") == "alert"
    assert page.do("document.getElementById('result').hidden"), "the answer to another sound"
    listen(page, talk)
    page.until("!document.getElementById('error').textContent")


def test_it_fits_a_phone_in_light_and_dark(page: Page, talk: Path, tmp_path: Path) -> None:
    listen(page, talk)
    for width in (360, 1000):
        for dark in (False, True):
            page.look(tmp_path / f"{width}-{dark}.png", width=width, dark=dark)
            assert page.do("document.documentElement.scrollWidth") <= width
            assert page.do("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('.wide'))"), "a button is cut"
            ground = page.do("getComputedStyle(document.body).backgroundColor")
            assert (ground == "rgb(22, 21, 20)") == dark
    small = "[...document.querySelectorAll('button:not(.turn)')].filter(b => b.offsetHeight && b.offsetHeight < 24)"
    assert page.do(f"{small}.length") == 0
    assert page.faults == []


def test_a_service_that_ends_is_told(here: Served, page: Page, talk: Path) -> None:
    here.service.turnstile.draining = True
    try:
        page.do("document.getElementById('error').textContent = ''")
        page.choose("#file", talk)
        page.until("document.getElementById('error').textContent")
        assert text(page, "#error") == "The service ends: ask another replica"
    finally:
        here.service.turnstile.draining = False
