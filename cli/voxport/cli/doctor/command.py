"""`voxport doctor`: what is installed, what can be done with it, what clashes, and what mends it."""

from typing import TYPE_CHECKING

import click

from voxport.cli.common import emit_json, example, json_option, show_table

if TYPE_CHECKING:
    from voxport.cli.doctor.capabilities import Ability
    from voxport.cli.doctor.conflicts import Clash
    from voxport.cli.doctor.environment import Environment


@click.command(epilog=example("voxport doctor\nvoxport doctor --json"))
@click.option(
    "--timeout",
    type=click.FloatRange(1.0),
    default=120.0,
    help="Seconds that each library may take to start, in a process of its own.",
)
@json_option
@click.pass_context
def doctor(context: click.Context, timeout: float, as_json: bool) -> None:
    """Say what is installed, what can be done here, what clashes, and what mends it.

    Installs and changes nothing. Exits with 1 where installed packages clash or one does not start; what is
    not installed is no fault.
    """
    from voxport.cli.doctor.capabilities import find_abilities
    from voxport.cli.doctor.conflicts import find_clashes
    from voxport.cli.doctor.environment import look

    environment = look(timeout=timeout)
    abilities, clashes = find_abilities(environment), find_clashes(environment)
    if as_json:
        emit_json(_report(environment, abilities, clashes))
    else:
        _page(environment, abilities, clashes)
    if clashes:
        context.exit(1)


def _page(environment: "Environment", abilities: "tuple[Ability, ...]", clashes: "tuple[Clash, ...]") -> None:
    show_table("Machine", ("fact", "value"), _machine(environment))
    click.echo()
    if environment.places:
        rows = [(place.name, place.where, place.problem) for place in environment.places]
        show_table("Written to", ("what", "where", "problem"), rows)
        for place in environment.places:
            if place.mend:
                click.echo(f"\nFor {place.name}:\n  {place.mend}")
        click.echo()
    packages = [(package.name, package.version) for package in environment.packages.values()]
    show_table("Packages", ("package", "version"), packages)
    click.echo()
    if started := _started(environment):
        show_table("Started in processes of their own", ("library", "answer"), started)
        click.echo()
    tasks = [(ability.name, "yes" if ability.ready else "no", "; ".join(ability.missing)) for ability in abilities]
    show_table("What can be done here", ("task", "ready", "missing"), tasks)
    _commands(abilities)
    click.echo()
    if not clashes:
        click.echo("Nothing that is installed clashes.")
    for clash in clashes:
        click.secho(f"clash: {' and '.join(clash.between)}", fg="red", bold=True)
        click.echo(f"  {clash.problem}\n  mend it: {clash.mend}")


def _commands(abilities: "tuple[Ability, ...]") -> None:
    """What mends each lacking ability, those of one command together. A table would break the commands."""
    by_mend: dict[str, list[str]] = {}
    for ability in abilities:
        if not ability.ready:
            by_mend.setdefault(ability.mend, []).append(ability.name)
    for mend, names in by_mend.items():
        click.echo(f"\nFor {', '.join(names)}:\n  {mend}")


def _machine(environment: "Environment") -> list[tuple[str, object]]:
    if environment.gpus:
        gpu = ", ".join(environment.gpus)
    else:
        gpu = "none that nvidia-smi shows" if environment.nvidia_smi else "none (no nvidia-smi)"
    return [
        ("Python", environment.python),
        ("system", environment.os),
        ("CPU", environment.cpu),
        ("usable cores", f"{environment.cores:g}"),
        ("CPU features", " ".join(environment.cpu_features) or "not known"),
        ("GPU", gpu),
        ("NVIDIA driver", environment.driver or "none"),
        ("C++ compiler", environment.compiler or "none"),
    ]


def _started(environment: "Environment") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for name, probe in environment.probes.items():
        facts = ", ".join(f"{key} {value}" for key, value in probe.facts.items() if value)
        rows.append((name, facts if probe.ok else f"does not start: {probe.problem}"))
    return rows


def _report(
    environment: "Environment", abilities: "tuple[Ability, ...]", clashes: "tuple[Clash, ...]"
) -> dict[str, object]:
    return {
        "machine": {
            "python": environment.python,
            "os": environment.os,
            "cpu": environment.cpu,
            "usable_cores": environment.cores,
            "cpu_features": environment.cpu_features,
            "gpus": environment.gpus,
            "driver": environment.driver,
            "compiler": environment.compiler,
        },
        "places": environment.places,
        "packages": {package.name: package.version for package in environment.packages.values()},
        "started": environment.probes,
        "abilities": [
            {"name": ability.name, "ready": ability.ready, "missing": ability.missing, "mend": ability.mend or None}
            for ability in abilities
        ],
        "clashes": clashes,
        "ok": not clashes,
    }
