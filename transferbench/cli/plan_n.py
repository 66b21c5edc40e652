"""`transferbench plan-n`: how many examples a comparison needs, before it is run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("plan-n", cls=options.Command, short_help="How many examples a comparison of two victims needs.")
@click.option("--difference", type=float, required=True, metavar="POINTS",
              help="The smallest difference of two rates that matters to you.")  # fmt: skip
@click.option("--discordance", type=float, required=True, metavar="POINTS",
              help="The share of examples on which you expect the two victims' verdicts to differ, in %; at least the "
              "difference. 20 is the median of the union on the board of letters-to-digits.")  # fmt: skip
@click.option("--power", type=float, default=0.8, metavar="SHARE", help="The power that is wanted (default: 0.8).")
@click.option("--n", type=int, metavar="N", help="Say what N examples find, instead of how many are needed.")
@click.option("--level", type=float, default=0.05, metavar="SHARE",
              help="Of the two-sided exact McNemar test (default: 0.05; for K pairs 0.05/K).")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def command(as_json: bool, **given: Any) -> None:
    """Print the n at which the exact McNemar test finds a difference with the power wanted, or the power of an N.

    Both numbers are assumptions that are made before a run: what difference matters, and how often two victims differ.
    No run is read, and the difference that a run has shown is not to be put in: power at the observed effect (post-hoc
    power) says what its p-value says, and nothing about the n that was needed. What a run can tell is in the interval
    of `transferbench compare`.
    """
    from transferbench.python.example_plans import plan_n

    plan = plan_n(given["difference"], given["discordance"], power=given["power"], n=given["n"], level=given["level"])
    say(json.dumps(asdict(plan), indent=1) if as_json else str(plan))
