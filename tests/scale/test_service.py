"""The service in one process: answers are the runtime's, errors are problem documents, and limits hold."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.runtime.tiny_models import TinyModel, make_tiny, tone
from tests.scale.served import Served, running
from voxport.runtime import Gallery, SpeakerIdentifier, Timeline
from voxport.scale.service.options import Limits, ServiceOptions

pytest.importorskip("uvicorn")


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    found = {}
    parts = {
        "low": tone(0.5, hertz=200),
        "lower": tone(0.45, hertz=150, size=0.2),
        "high": tone(0.5, hertz=3000),
        "long": np.concatenate([tone(2, hertz=300), tone(2, hertz=900)]),
    }
    for name, samples in parts.items():
        found[name] = folder / f"{name}.wav"
        soundfile.write(found[name], samples, 16000)
    return found


@pytest.fixture(scope="module")
def identifier(model: TinyModel) -> SpeakerIdentifier:
    return SpeakerIdentifier.load(model.path)


def test_identify_is_the_runtimes(served: Served, identifier: SpeakerIdentifier, sounds: dict[str, Path]) -> None:
    for path in sounds.values():
        told, said = served.post("/v1/identify?top=3", path), identifier.identify(path, top=3)
        assert (told["speaker"], told["known"], told["windows"]) == (said.speaker, said.known, said.windows)
        assert [each["speaker"] for each in told["ranked"]] == [each.speaker for each in said.ranked]
        assert [each["score"] for each in told["ranked"]] == pytest.approx(
            [each.score for each in said.ranked], abs=1e-3
        )
        assert told["duration_s"] == said.duration_s


def test_embed_and_timeline_are_the_runtimes(
    served: Served, identifier: SpeakerIdentifier, sounds: dict[str, Path]
) -> None:
    told = served.post("/v1/embed", sounds["long"])
    np.testing.assert_allclose(told["embedding"], identifier.embed(sounds["long"]), atol=1e-5)
    segments = served.post("/v1/timeline", sounds["long"])["segments"]
    expected = Timeline(identifier).segments(sounds["long"])
    assert [(each["start_s"], each["end_s"], each["speaker"]) for each in segments] == [
        (each.start_s, each.end_s, each.speaker) for each in expected
    ]


def test_voices_are_enrolled_found_verified_and_forgotten(
    served: Served, identifier: SpeakerIdentifier, sounds: dict[str, Path]
) -> None:
    assert (
        served.ask("POST", "/v1/identify?among=voices", sounds["low"].read_bytes()).document["type"].endswith("voices")
    )
    for name, sound in (("Ada/1", "low"), ("Bö", "high"), ("Ada/1", "lower"), ("Ada/1", "lower")):
        path = "/v1/voices/" + {"Ada/1": "Ada/1", "Bö": "B%C3%B6"}[name]
        reply = served.ask("PUT", path, sounds[sound].read_bytes())
        assert reply.status == 200, reply.body
        assert reply.document["speaker"] == name
    gallery = Gallery(identifier.contract)
    gallery.enroll("Ada/1", [identifier.voice(sounds["low"]), identifier.voice(sounds["lower"])])
    gallery.enroll("Bö", identifier.voice(sounds["high"]))
    listed = served.ask("GET", "/v1/voices").document["voices"]
    assert listed == [{"speaker": "Ada/1", "utterances": 2}, {"speaker": "Bö", "utterances": 1}]
    told = served.post("/v1/identify?among=voices", sounds["lower"])
    said = gallery.identify(identifier.voice(sounds["lower"]))
    assert [each["speaker"] for each in told["ranked"]] == [each.speaker for each in said.ranked]
    assert [each["cosine"] for each in told["ranked"]] == pytest.approx([each.cosine for each in said.ranked], abs=1e-5)
    verified = served.post("/v1/verify?speaker=B%C3%B6", sounds["high"])
    assert verified["cosine"] == pytest.approx(1, abs=1e-4)
    assert served.post("/v1/timeline?among=voices", sounds["long"])["segments"]
    assert served.ask("POST", "/v1/verify?speaker=Cy", sounds["high"].read_bytes()).status == 404
    for path in ("/v1/voices/Ada/1", "/v1/voices/B%C3%B6"):
        assert served.ask("DELETE", path).status == 204
        assert served.ask("DELETE", path).status == 404
    assert served.ask("GET", "/v1/voices").document["voices"] == []


PROBLEMS: list[tuple[str, str, bytes | None, int, str, str]] = [
    ("POST", "/v1/identify", b"", 422, "sound", "the body is empty"),
    ("POST", "/v1/identify", b"This is no sound.", 422, "sound", ""),
    ("POST", "/v1/identify?top=0", b"x", 422, "parameter", "top"),
    ("POST", "/v1/identify?among=all", b"x", 422, "parameter", "among"),
    ("POST", "/v1/identify?channel=0", b"x", 422, "parameter", "channel"),
    ("POST", "/v1/identify?channel=each", b"x", 422, "parameter", "channel"),
    ("POST", "/v1/identify", bytes(400_001), 413, "size", "400,000"),
    ("GET", "/v1/identify", None, 405, "http", ""),
    ("GET", "/nowhere", None, 404, "http", ""),
    ("GET", "/page/..%2f..%2fapp.py", None, 404, "http", ""),
    ("GET", "/page/app.py", None, 404, "unknown", ""),
    ("POST", "/v1/calibrate?false_accept_rate=2", None, 422, "parameter", "false_accept_rate"),
    ("PUT", "/v1/voices/%07", b"x", 422, "sound", ""),
    ("POST", "/v2/models/other/infer", b"{}", 404, "unknown", "other"),
    ("POST", "/v2/models/voxport/infer", b"{}", 400, "inference", "inputs"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "kind", "words"), PROBLEMS)
def test_what_is_wrong_is_told_in_a_problem_document(
    served: Served, method: str, path: str, body: bytes | None, status: int, kind: str, words: str
) -> None:
    reply = served.ask(method, path, body)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.document
    assert set(document) - {"error"} == {"type", "title", "status", "detail"}
    assert ("error" in document) == path.startswith("/v2/")
    assert (document["type"], document["status"]) == (f"urn:voxport:{kind}", status)
    assert words in document["detail"]
    assert "/tmp" not in document["detail"]


def test_a_file_that_claims_hours_is_refused_before_it_is_decoded(served: Served, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "bomb.flac", np.zeros(16000 * 600, np.int16), 16000)
    assert (tmp_path / "bomb.flac").stat().st_size < 400_000
    began = time.process_time()
    reply = served.ask("POST", "/v1/identify", (tmp_path / "bomb.flac").read_bytes())
    assert (reply.status, reply.document["type"]) == (422, "urn:voxport:length")
    assert time.process_time() - began < 1


def test_a_slow_body_is_given_up_and_others_are_answered(served: Served, sounds: dict[str, Path]) -> None:
    with socket.create_connection(("127.0.0.1", served.port)) as slow:
        slow.sendall(b"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nRIFF")
        assert served.post("/v1/identify", sounds["low"])["speaker"]
        assert slow.recv(65536).startswith(b"HTTP/1.1 408")


def test_more_than_the_queue_holds_is_turned_away(served: Served, sounds: dict[str, Path]) -> None:
    waiting = []
    head = b"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nRIFF"
    for _ in range(8):
        waiting.append(socket.create_connection(("127.0.0.1", served.port)))
        waiting[-1].sendall(head)
    while served.service.turnstile.inside < 8:
        time.sleep(0.005)
    reply = served.ask("POST", "/v1/identify", sounds["low"].read_bytes())
    assert (reply.status, reply.document["type"], reply.headers["retry-after"]) == (503, "urn:voxport:busy", "1")
    assert served.ask("GET", "/health/ready").status == 200
    for each in waiting:
        each.close()
    while served.service.turnstile.inside:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1", "Origin": "null"}, 200),
        ({"Host": "localhost"}, 200),
    ],
)
def test_pages_of_other_sites_may_not_ask(
    served: Served, sounds: dict[str, Path], headers: dict[str, str], status: int
) -> None:
    assert served.ask("POST", "/v1/identify", sounds["low"].read_bytes(), **headers).status == status


def test_health_metrics_and_description(served: Served) -> None:
    assert served.ask("GET", "/health/live").document == {"status": "live"}
    assert served.ask("GET", "/health/ready").document == {"status": "ready"}
    metrics = served.ask("GET", "/metrics")
    assert b'voxport_requests_total{replica="' in metrics.body
    assert b'route="/v1/identify",status="200"' in metrics.body
    described = served.ask("GET", "/openapi.json").document
    assert {"/v1/identify", "/v1/voices/{name}", "/v2/models/{name}/infer"} <= set(described["paths"])
    assert "application/octet-stream" in described["paths"]["/v1/identify"]["post"]["requestBody"]["content"]
    page = served.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]


def test_keys_are_needed_where_there_are_some(model: TinyModel, sounds: dict[str, Path]) -> None:
    keys = tuple(hashlib.sha256(key.encode()).hexdigest() for key in ("first key of two", "the other key"))
    sound = sounds["low"].read_bytes()
    with running(ServiceOptions(model.path, engine="local", port=0, keys=keys)) as served:
        assert served.ask("POST", "/v1/identify", sound).status == 401
        assert served.ask("POST", "/v1/identify", sound, Authorization="Bearer wrong").status == 401
        assert served.ask("POST", "/v1/identify", sound, Authorization="Bearer the other key").status == 200
        assert served.ask("POST", "/v1/identify", sound, X_API_Key="first key of two").status == 200
        assert served.ask("GET", "/metrics").status == 401
        assert served.ask("GET", "/v2/models/voxport").status == 401
        assert served.ask("GET", "/health/live").status == 200
        assert served.ask("GET", "/").status == 200


def test_what_is_at_work_is_answered_before_the_end(model: TinyModel, sounds: dict[str, Path]) -> None:
    sound = sounds["low"].read_bytes()
    with (
        running(ServiceOptions(model.path, engine="local", port=0)) as served,
        socket.create_connection(("127.0.0.1", served.port)) as late,
    ):
        head = f"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(sound)}\r\n\r\n"
        late.sendall(head.encode() + sound[:100])
        while served.service.turnstile.inside < 1:
            time.sleep(0.005)
        served.service.loop.call_soon_threadsafe(served.server.handle_exit, 15, None)
        while not served.service.turnstile.draining:
            time.sleep(0.005)
        assert served.ask("GET", "/health/ready").status == 503
        refused = served.ask("POST", "/v1/identify", sound)
        assert (refused.status, refused.document["type"]) == (503, "urn:voxport:draining")
        late.sendall(sound[100:])
        assert late.recv(65536).startswith(b"HTTP/1.1 200")


def test_requests_are_taken_for_a_while_after_it_is_told_to_end(model: TinyModel, sounds: dict[str, Path]) -> None:
    """As a load balancer sees it: first not ready, and each client sent elsewhere; only then refused."""
    sound = sounds["low"].read_bytes()
    options = ServiceOptions(model.path, engine="local", port=0, shutdown_delay_s=1.5)
    with running(options) as served:
        before = served.ask("POST", "/v1/identify", sound)
        assert "close" not in before.headers.get("connection", "")
        told = time.monotonic()
        served.service.loop.call_soon_threadsafe(served.server.handle_exit, 15, None)
        while served.service.turnstile.ready:
            time.sleep(0.005)
        assert served.ask("GET", "/health/live").status == 200
        for path in ("/health/ready", "/v2/health/ready", "/v2/models/voxport/ready"):
            assert served.ask("GET", path).status == 503
        answered = served.ask("POST", "/v1/identify", sound)
        assert time.monotonic() - told < 1.5, "the machine was too slow for this test"
        assert (answered.status, answered.document) == (200, before.document)
        assert answered.headers["connection"] == "close"
        while not served.service.turnstile.draining:
            time.sleep(0.005)
        assert time.monotonic() - told >= 1.4


def test_a_model_of_embeddings_alone_names_nobody_of_its_own(tmp_path: Path, sounds: dict[str, Path]) -> None:
    from tests.scale.corpus import embedding_only

    path = embedding_only(tmp_path, make_tiny(tmp_path / "both.onnx", "waveform"))
    with running(ServiceOptions(path, engine="local", port=0)) as served:
        reply = served.ask("POST", "/v1/identify", sounds["low"].read_bytes())
        assert (reply.status, reply.document["type"]) == (404, "urn:voxport:unknown")
        assert served.post("/v1/embed", sounds["low"])["embedding"]


# --- WebSocket ----------------------------------------------------------------------------------------


def converse(port: int, *messages: Any) -> list[Any]:
    """Send these messages, and return all that came until the end."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed

    async def talk() -> list[Any]:
        found = []
        async with connect(f"ws://127.0.0.1:{port}/v1/stream", proxy=None) as talking:
            try:
                for message in messages:
                    await talking.send(message)
                while True:
                    found.append(json.loads(await talking.recv()))
            except ConnectionClosed:
                return found

    return asyncio.run(talk())


def test_a_stream_decides_as_the_runtime_does(served: Served, identifier: SpeakerIdentifier) -> None:
    from voxport.runtime import Stream

    samples = (tone(3, hertz=300) * 32767).astype("<i2")
    expected = Stream(identifier, 16000)
    decisions = [*expected.push(samples), *expected.close()]
    chunks = [samples[at : at + 4000].tobytes() for at in range(0, len(samples), 4000)]
    told = converse(served.port, json.dumps({"sample_rate": 16000}), *chunks, "end")
    assert decisions
    assert [(each["end_s"], each["speaker"], each["firm"]) for each in told] == [
        (each.end_s, each.speaker, each.firm) for each in decisions
    ]
    assert served.service.streams == 0


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        (["not JSON"], "message"),
        (['{"sample_rate": "many"}'], "message"),
        (['{"sample_rate": 16000, "format": "mp3"}'], "message"),
        (['{"sample_rate": 16000}', b"123"], "message"),
        (['{"sample_rate": 16000}', "more"], "message"),
        (['{"sample_rate": 1}'], "sound"),
        (['{"sample_rate": 16000, "format": "f32le"}', np.full(100, np.nan, "<f4").tobytes()], "sound"),
        (['{"sample_rate": 16000}'], "slow"),
    ],
)
def test_a_stream_that_goes_wrong_ends_with_a_problem(served: Served, messages: list[Any], kind: str) -> None:
    told = converse(served.port, *messages)
    assert told[-1]["type"] == f"urn:voxport:{kind}"
    assert served.service.streams == 0


# --- KServe -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("binary", [True, False])
def test_tritonclient_is_answered(
    served: Served, identifier: SpeakerIdentifier, sounds: dict[str, Path], binary: bool
) -> None:
    client_of = pytest.importorskip("tritonclient.http")
    client = client_of.InferenceServerClient(f"127.0.0.1:{served.port}")
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("voxport")
    assert {each["name"] for each in client.get_model_metadata("voxport")["outputs"]} == {"scores", "embedding"}
    lengths = np.array([[8000], [7200]], np.int64)
    waveform = np.zeros((2, 8000), np.float32)
    for row, name in enumerate(("low", "lower")):
        samples, _ = soundfile.read(sounds[name], dtype="float32")
        waveform[row, : len(samples)] = samples
    inputs = []
    for name, values in (("waveform", waveform), ("lengths", lengths)):
        inputs.append(client_of.InferInput(name, values.shape, {"f": "FP32", "i": "INT64"}[values.dtype.kind]))
        inputs[-1].set_data_from_numpy(values, binary_data=binary)
    outputs = [client_of.InferRequestedOutput("scores", binary_data=binary)]
    found = client.infer("voxport", inputs, outputs=outputs).as_numpy("scores")
    for row, name in enumerate(("low", "lower")):
        np.testing.assert_allclose(found[row], identifier.scores(sounds[name]), atol=1e-3)
    content = np.array([sounds["low"].read_bytes(), sounds["long"].read_bytes()], dtype=object)
    given = client_of.InferInput("sound", content.shape, "BYTES")
    given.set_data_from_numpy(content, binary_data=True)
    found = client.infer("voxport", [given]).as_numpy("embedding")
    for row, name in enumerate(("low", "long")):
        np.testing.assert_allclose(found[row], identifier.embed(sounds[name]), atol=1e-4)
    broken = client_of.InferInput("sound", [1], "BYTES")
    broken.set_data_from_numpy(np.array([b"no sound"], dtype=object))
    with pytest.raises(Exception, match="sound 0: "):
        client.infer("voxport", [broken])
    client.close()


# --- load ---------------------------------------------------------------------------------------------


def test_answers_at_once_are_each_their_own(served: Served, identifier: SpeakerIdentifier, tmp_path: Path) -> None:
    paths = []
    for number in range(8):
        paths.append(tmp_path / f"{number}.wav")
        soundfile.write(paths[-1], tone(0.3 + 0.02 * number, hertz=200 + 300 * number), 16000)
    told: dict[int, Any] = {}

    def ask(number: int) -> None:
        told[number] = served.post("/v1/embed", paths[number])["embedding"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    for number, path in enumerate(paths):
        np.testing.assert_allclose(told[number], identifier.embed(path), atol=1e-4)


def test_impossible_limits_are_refused() -> None:
    from voxport.scale.errors import ScaleError

    with pytest.raises(ScaleError, match="queue must be above 0"):
        Limits(queue=0)
    with pytest.raises(ScaleError, match="share"):
        ServiceOptions(Path("m.onnx"), replicas=2)
