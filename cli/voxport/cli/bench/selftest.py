"""`voxport bench selftest`: what the benchmark itself costs, and whether its intervals hold."""

import click

from voxport.cli.common import emit_json, example, json_option, needs, show_table


@click.command(epilog=example("voxport bench selftest"))
@click.option("--seed", type=int, default=1, help="Seed of the simulated comparisons.")
@json_option
@needs("bench", "cpu")
def selftest(seed: int, as_json: bool) -> None:
    """Measure what timing costs here, and simulate how often intervals hold the truth.

    Exits with 1 where the harness costs 1 % of a 5 ms call or more, or where intervals are too narrow.
    """
    import dataclasses

    from voxport.benchmarks.selftest import CALL_MS, self_test

    found = self_test(seed)
    if as_json:
        emit_json({**dataclasses.asdict(found), "passed": found.passed})
    else:
        rows = (
            ("inside each time", f"{found.harness_us:.2f} µs", f"{found.harness_share:.4%} of a {CALL_MS:g} ms call"),
            ("around each call", f"{found.around_us:.2f} µs", f"{found.around_share:.4%}"),
            ("step of the clock", f"{found.clock_step_ns} ns", ""),
            ("95 % intervals that hold the truth", f"{found.coverage:.1%}", f"{found.trials} comparisons"),
            ("equals called faster or slower", f"{found.false_verdicts:.1%}", f"{found.rounds} rounds each"),
        )
        show_table("The benchmark, measured", ("what", "value", ""), rows)
        needed = [
            (f"p{100 * one.quantile:g}", str(one.samples), str(one.one_late), str(one.two_late)) for one in found.needed
        ]
        columns = ("percentile", "to print it; to prove a bound, none late", "one late", "two late")
        show_table("\nFewest samples", columns, needed)
        click.echo("\npassed" if found.passed else "\nfailed: do not trust small differences measured here")
    if not found.passed:
        raise click.exceptions.Exit(1)
