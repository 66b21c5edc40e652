"""plan_n(): how many examples a comparison of two victims needs, or what a given number detects."""

from __future__ import annotations

from dataclasses import dataclass

from transferbench.leaderboard import power as statistics
from transferbench.leaderboard.power import LEVEL, POWER


@dataclass(frozen=True)
class ExamplePlan:
    """A plan of n examples for the two-sided exact McNemar test at `level`. `print(plan)` says it in words.

    `difference`, `discordance`, `half_width` (of the 95 % interval of the difference, with the expected counts) and
    `detectable` (the smallest difference that has the power `wanted`; None where none has) are points, hundredths of
    the n examples; `power` and `wanted` shares.
    """

    n: int
    difference: float
    discordance: float
    power: float
    wanted: float
    level: float
    half_width: float
    detectable: float | None

    def __str__(self) -> str:
        detectable = "no difference" if self.detectable is None else f"{self.detectable:.2f} points or more"
        return (
            f"n = {self.n}: a difference of {self.difference:g} points is found with {100 * self.power:.1f} % power "
            f"(two-sided exact McNemar test, p < {self.level:g}), if the two victims' verdicts differ on "
            f"{self.discordance:g} % of the examples\n"
            f"95 % interval of that difference: about +-{self.half_width:.2f} points; {detectable} would be found with "
            f"{100 * self.wanted:g} % power"
        )


def plan_n(
    difference: float, discordance: float, *, power: float = POWER, n: int | None = None, level: float = LEVEL
) -> ExamplePlan:
    """The smallest n that finds a difference with this power, or what a given n finds.

    `difference`, in points, is the smallest one that matters, and `discordance` the share of examples, in points, on
    which two victims' verdicts are expected to differ: both are assumptions that are made before a run. The effect
    that a run has shown has no place here: power at the observed effect is its p-value in other words. For many pairs,
    `level` divided by their number is what Holm's correction asks of the smallest p.

    InputError for numbers that have no n.
    """
    shares = difference / 100, discordance / 100
    found = statistics.examples_needed(*shares, power, level) if n is None else n
    detectable = statistics.detectable_difference(found, shares[1], power, level)
    return ExamplePlan(
        n=found,
        difference=difference,
        discordance=discordance,
        power=statistics.mcnemar_power(found, *shares, level),
        wanted=power,
        level=level,
        half_width=100 * statistics.half_width(found, *shares),
        detectable=None if detectable is None else 100 * detectable,
    )
