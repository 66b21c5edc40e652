"""`transferbench selftest`: are planted adversarial regions found?"""

from __future__ import annotations

import sys
from typing import Any

import click

from transferbench.base.corruptions import CORRUPTION_THREATS
from transferbench.base.errors import FaultError, InputError
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import NORMS
from transferbench.cli import options
from transferbench.cli.output import say


@click.command("selftest", cls=options.Command, short_help="Plant adversarial regions around examples: are they found?")
@options.model
@options.dataset
@options.norms
@options.eps
@click.option("--n", type=int, default=32, metavar="N", help="First N test examples (default: 32).")
@click.option("--seed", type=int, default=0, metavar="S", help="Seed of the planted points (default: 0).")
@options.places
@options.batch_size
def command(**given: Any) -> None:
    """Plant adversarial regions around examples of a model and count how many the chain finds."""
    from transferbench.workflows import evaluate
    from transferbench.workflows import settings as settings_check

    settings = RunSettings(**{name: given.pop(name) for name in ("data_dir", "model_dir", "batch_size")})
    device = given.pop("device")
    given["norms"] = given["norms"] or NORMS
    without_attack = [threat for threat in given["norms"] if threat in CORRUPTION_THREATS]
    if without_attack:
        raise InputError(f"selftest: there is no attack under {without_attack[0]} that could miss anything; name norms")
    request = evaluate.EvaluationRequest(**given)
    evaluate.check(request)
    settings_check.check(settings)
    settings = settings_check.placed(settings, device, 1)
    subjects = evaluate.load(request, settings)
    passed = True
    chains = ", ".join(str(chain.threat) for chain in subjects.chains)
    print(f"planting regions around {subjects.images.n} examples: {chains}", file=sys.stderr)
    for threat, planted, found in evaluate.selftest(request, subjects, settings):
        say(f"{threat:<12} {found} of {planted} planted regions found")
        passed = passed and planted == found
    if not passed:
        raise FaultError(
            "selftest failed: the attacks do not find what is certainly there; robust accuracy means little"
        )
