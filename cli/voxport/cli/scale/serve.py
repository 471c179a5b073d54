"""`voxport serve`: a model as an HTTP service, with a page for people."""

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from voxport.cli.common import FILE_PATH, emit_json, example, needs


@click.command(
    epilog=example(
        """
        voxport serve model.onnx
        voxport serve model.onnx --store voices.db --replicas 2
        voxport serve model.onnx --store postgresql://voices@db/voices --keys keys.txt --host 0.0.0.0
        """
    )
)
@click.argument("model", type=FILE_PATH)
@click.option("--store", help="Where voices are kept: a SQLite file or postgresql://…  [default: until the end]")
@click.option("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 for all.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, help="Port to listen on.")
@click.option(
    "--grpc-port", type=click.IntRange(1, 65535), help="Port of KServe's protocol over gRPC.  [default: none]"
)
@click.option("--keys", type=FILE_PATH, help="File of API keys, one a line.  [default: none needed]")
@click.option(
    "--engine",
    type=click.Choice(["ray", "local"]),
    default="ray",
    help="Ray Serve, with any number of replicas, or this process alone.",
)
@click.option("--address", help="A cluster of Ray to serve on.  [default: this machine]")
@click.option("--replicas", type=click.IntRange(1), default=1, help="Processes with a model each.")
@click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda", "tensorrt"]), default="cpu", help="Device of each replica."
)
@click.option("--threads", type=click.IntRange(1), default=1, help="CPU threads of each replica.")
@click.option("--max-batch", type=click.IntRange(1), default=16, help="Most requests that run as one batch.")
@click.option("--max-wait-ms", type=click.FloatRange(0), default=5.0, help="Longest wait for a batch to fill, in ms.")
@click.option("--max-mb", type=click.FloatRange(0.001), default=50.0, help="Largest sound file, in MB.")
@click.option("--max-seconds", type=click.FloatRange(0.1), default=3600.0, help="Longest sound, in seconds.")
@click.option(
    "--queue", type=click.IntRange(1), default=128, help="Most requests at work in a replica; more are refused."
)
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, help="Longest time to an answer, in seconds.")
@click.option(
    "--shutdown-delay",
    type=click.FloatRange(0),
    default=0.0,
    help="Seconds to go on taking requests when told to end, until load balancers know.",
)
@click.option("--drain", type=click.FloatRange(0), default=30.0, help="Time for requests at work to end, in seconds.")
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as JSON on stdout, when it is ready.")
@needs("serve", "cpu")
def serve(model: Path, keys: Path | None, as_json: bool, **choices: Any) -> None:
    """Answer over HTTP who speaks, who speaks when, and who is enrolled; a page at / does so for people.

    Prints a line when it is ready, and ends on Ctrl-C or SIGTERM, when what is at work is answered. /openapi.json
    describes it all, /metrics is for Prometheus, and /v2 for KServe's clients.
    """
    from voxport.scale.service.deployment import serve as run
    from voxport.scale.service.options import LOOPBACK, ServiceOptions

    options = ServiceOptions.chosen(model, keys=keys, **choices)
    if options.host not in LOOPBACK and not options.keys:
        click.echo("note: everybody who reaches this machine may ask, enroll and remove; see --keys", err=True)
    if options.store is None:
        click.echo("note: voices are forgotten at the end; keep them with --store voices.db", err=True)

    stdout = sys.stdout  # with Ray, what is printed meanwhile goes to stderr

    def told(line: str) -> None:
        if as_json and line.startswith("ready: "):
            with contextlib.redirect_stdout(stdout):
                emit_json(_places(line.removeprefix("ready: "), options.grpc_port))
                stdout.flush()
        click.echo(line, err=True)

    run(options, told)


def _places(url: str, grpc_port: int | None) -> dict[str, Any]:
    """Where it listens; the address of gRPC has no scheme, as its clients take it."""
    host = url.removeprefix("http://").rpartition(":")[0]
    return {"url": url} | ({} if grpc_port is None else {"grpc": f"{host}:{grpc_port}"})
