"""Load and faults for `voxport serve`, on this machine's loopback address alone, in bounded loops.

    python load.py MODEL CLIP [--engine local] [--seconds 10] [--soak 600] [--kill] > load.json

CLIP is a sound file of some seconds. Requests go one at a time, then 2, 4, 8 and 16 at once; then clients misbehave
while others ask; then for `--soak` seconds at 80 % of the best rate. `--kill` needs engine ray: a replica is killed
under load.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile


def request(path: str, body: bytes, close: bool = False) -> bytes:
    """A POST as bytes."""
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return (head + ("Connection: close\r\n" if close else "") + "\r\n").encode() + body


async def reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return int(head.split(b" ", 2)[1]), await reader.readexactly(length)


async def client(port: int, message: bytes, until: float, found: list[Any], every: float = 0.0) -> None:
    """Ask again and again on one connection, at most every `every` seconds."""
    reader = writer = None
    while (began := time.monotonic()) < until:
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(message)
            assert reader is not None
            status, body = await asyncio.wait_for(reply(reader), 60)
            found.append((time.monotonic() - began, status, body))
        except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError) as problem:
            found.append((time.monotonic() - began, type(problem).__name__, b""))
            writer = None
        if every:
            await asyncio.sleep(max(0.0, began + every - time.monotonic()))
    if writer is not None:
        writer.close()


def figures(found: list[Any], seconds: float, right: str | None) -> dict[str, Any]:
    """Rates and percentiles of what was answered, and everything that was not 200."""
    times = sorted(each[0] for each in found if each[1] == 200)
    wrong = [each for each in found if each[1] == 200 and right is not None and json.loads(each[2])["speaker"] != right]
    other: dict[str, int] = {}
    for _, status, _ in found:
        if status != 200:
            other[str(status)] = other.get(str(status), 0) + 1
    at = [round(1000 * float(np.quantile(times, q)), 1) for q in (0.5, 0.99)] if times else [None, None]
    return {
        "requests": len(found),
        "per_s": round(len(times) / seconds, 2),
        "p50_ms": at[0],
        "p99_ms": at[1],
        "not_200": other,
        "wrong_answers": len(wrong),
    }


class Service:
    """The service, its processes, and their processor time and memory."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = tempfile.TemporaryDirectory()
        start = [sys.executable, "-c", "from voxport.cli.root import main; main()", "serve", str(arguments.model)]
        options = ["--engine", arguments.engine, "--port", str(self.port), "--store", f"{self.folder.name}/voices.db"]
        if arguments.engine == "ray":
            options += ["--replicas", "2"]
        self.run = subprocess.Popen([*start, *options, "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self.run.stdout is not None
        began = time.monotonic()
        self.run.stdout.readline()
        self.start_s = round(time.monotonic() - began, 1)

    def processes(self) -> list[psutil.Process]:
        """All that belong to it."""
        return [psutil.Process(self.run.pid), *psutil.Process(self.run.pid).children(recursive=True)]

    def cpu(self) -> float:
        """Processor seconds so far."""
        return sum(each.cpu_times().user + each.cpu_times().system for each in self.processes())

    def rss(self) -> int:
        """Resident MiB of all."""
        return round(sum(each.memory_info().rss for each in self.processes()) / 2**20)

    def end(self) -> int:
        """Have it end; its exit code."""
        self.run.send_signal(signal.SIGTERM)
        code = self.run.wait(120)
        self.folder.cleanup()
        return code


async def loaded(service: Service, message: bytes, at_once: int, seconds: float, right: str) -> dict[str, Any]:
    """So many clients at once."""
    found: list[Any] = []
    before, until = service.cpu(), time.monotonic() + seconds
    await asyncio.gather(*(client(service.port, message, until, found) for _ in range(at_once)))
    cost = service.cpu() - before
    return {"at_once": at_once, "cpu_ms_each": round(1000 * cost / max(1, len(found)), 1)} | figures(
        found, seconds, right
    )


async def soak(service: Service, message: bytes, rate: float, seconds: float, right: str) -> dict[str, Any]:
    """At a steady rate, with the memory now and then."""
    clients = 8
    found: list[Any] = []
    until, memory = time.monotonic() + seconds, []

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(service.rss())
            await asyncio.sleep(seconds / 20)

    every = clients / rate
    await asyncio.gather(watch(), *(client(service.port, message, until, found, every) for _ in range(clients)))
    return {"rate": round(rate, 1), "seconds": seconds, "rss_mib": memory} | figures(found, seconds, right)


async def raw(port: int, content: bytes, wait_s: float = 70.0) -> str:
    """What is answered to bytes that are no good request; `nothing` where the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(content)
        line = await asyncio.wait_for(reader.readline(), wait_s)
        return line.decode("latin-1").strip() or "nothing"
    except (OSError, asyncio.TimeoutError) as problem:
        return type(problem).__name__
    finally:
        writer.close()


async def faults(service: Service, message: bytes, right: str) -> dict[str, Any]:
    """Clients that misbehave, while one asks as it should."""
    bomb = Path(service.folder.name, "bomb.flac")
    soundfile.write(bomb, np.zeros(16000 * 7200, np.int16), 16000)
    noise = np.random.default_rng(0).bytes(4000)
    trials = {
        "claims 10 GB": request("/v1/identify", b"RIFF").replace(b": 4\r", b": 10000000000\r"),
        "no HTTP": noise,
        "malformed chunk": b"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "noise as a sound": request("/v1/identify", noise),
        "two hours of silence in FLAC": request("/v1/identify", bomb.read_bytes()),
        "JSON of 40,000 brackets": request("/v2/models/voxport/infer", b"[" * 40_000),
    }
    told: dict[str, Any] = {"bomb_bytes": bomb.stat().st_size}
    before = service.rss()
    for name, content in trials.items():
        told[name] = await raw(service.port, content)
    idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(1000)]
    slow = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(20)]
    for _, writer in slow:
        writer.write(b"POST /v1/identify HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nRIFF")
    told["beside 1,000 idle and 20 slow clients"] = await loaded(service, message, 2, 5.0, right)
    for _, writer in (*idle, *slow):
        writer.close()
    told["rss_mib"] = [before, service.rss()]
    return told


async def killed(service: Service, message: bytes, right: str) -> dict[str, Any]:
    """A replica dies under load."""
    found: list[Any] = []
    seconds = 20.0
    until = time.monotonic() + seconds

    async def kill() -> None:
        await asyncio.sleep(4)
        replicas = [each for each in service.processes() if "Replica" in " ".join(each.cmdline()[:1])]
        os.kill(replicas[0].pid, signal.SIGKILL)

    await asyncio.gather(kill(), *(client(service.port, message, until, found) for _ in range(4)))
    return figures(found, seconds, right)


async def measure(arguments: argparse.Namespace, service: Service) -> dict[str, Any]:
    """Everything, in turn."""
    message = request("/v1/identify", arguments.clip.read_bytes())
    first: list[Any] = []
    await client(service.port, message, time.monotonic() + 3, first)
    right = json.loads(first[-1][2])["speaker"]
    found: dict[str, Any] = {"engine": arguments.engine, "start_s": service.start_s, "load": [os.getloadavg()[0]]}
    found["rates"] = []
    for _ in range(arguments.rounds):
        for at_once in (1, 2, 4, 8, 16):
            found["rates"].append(await loaded(service, message, at_once, arguments.seconds, right))
    found["load"].append(os.getloadavg()[0])
    if arguments.kill:
        found["killed"] = await killed(service, message, right)
    found["faults"] = await faults(service, message, right)
    if arguments.soak:
        best = max(each["per_s"] for each in found["rates"])
        found["soak"] = await soak(service, message, 0.8 * best, arguments.soak, right)
    found["load"].append(os.getloadavg()[0])
    return found


def main() -> None:
    """Serve, measure, end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--engine", default="local", choices=["local", "ray"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--soak", type=float, default=600.0)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    service = Service(arguments)
    try:
        found = asyncio.run(measure(arguments, service))
        found["exit_code"] = service.end()
    finally:
        if service.run.poll() is None:
            service.run.kill()
    sys.stdout.write(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
