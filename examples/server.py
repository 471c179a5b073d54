"""Who is speaking, over HTTP: a sound file in, names out. Requests that come together run together.

pip install "voxport[cpu,media]" fastapi uvicorn
VOXPORT_MODEL=model.onnx uvicorn --app-dir examples server:app
curl --data-binary @who.wav http://127.0.0.1:8000/identify
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from voxport.runtime import (
    AudioError,
    BackendError,
    Batcher,
    BatcherClosedError,
    BatcherOptions,
    LengthError,
    SpeakerIdentifier,
)

MAX_BYTES = 20_000_000  # of one sound file
PATIENCE = 10.0  # seconds that a client waits at most


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """In each worker process: load the model before the first request, and answer the last before the end."""
    model = os.environ.get("VOXPORT_MODEL", "model.onnx")
    identifier = await asyncio.to_thread(SpeakerIdentifier.load, model)
    if "scores" not in identifier.contract.outputs:  # now, not at the first request
        raise RuntimeError(f"{model} gives embeddings, not speakers; export it again with --output both")
    async with Batcher(identifier, BatcherOptions(max_wait_ms=5)) as app.state.batcher:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/identify")
async def identify(request: Request) -> dict[str, object]:
    """The five most probable speakers of the request's body: wav, flac, ogg, mp3, m4a, WebM and others."""
    batcher: Batcher = request.app.state.batcher
    with tempfile.NamedTemporaryFile() as file:
        async for chunk in request.stream():
            if file.tell() + len(chunk) > MAX_BYTES:
                raise HTTPException(413, f"at most {MAX_BYTES} bytes are taken")
            file.write(chunk)
        file.flush()
        try:
            answer = await asyncio.wait_for(batcher.identify(file.name), PATIENCE)
        except (AudioError, LengthError) as problem:
            raise HTTPException(422, str(problem).replace(file.name, "the sound")) from problem
        except BackendError as problem:  # a format for which the extra `media` is not installed here
            raise HTTPException(415, str(problem).replace(file.name, "the sound")) from problem
        except (asyncio.TimeoutError, BatcherClosedError) as problem:
            raise HTTPException(503, "too many requests wait, or the server ends; try again later") from problem
    return {
        "speaker": answer.speaker,
        "speakers": [{"name": each.speaker, "probability": each.probability} for each in answer.ranked],
        "seconds": answer.duration_s,
        "known": answer.known,
        "notes": [each.text for each in answer.notes],
    }
