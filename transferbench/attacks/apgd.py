"""Auto-PGD in Linf, L2 and L1, on cross-entropy or on (targeted) DLR: AutoAttack's first two attacks.

Paper: Croce and Hein 2020 (arXiv:2003.01690) for Linf and L2, 2021 (arXiv:2103.01208) for L1.
Threats: Linf, L2, L1; `l1-screen` L1 alone.
Holds: the victim.
Counts: every iterate inside the ball.
Deviations: targets are capped at classes - 1, where the reference stops with an IndexError.

The protocol of E-AT (arXiv:2105.12508) is apgd-ce followed by apgd-t, ten tries of 100 iterations per norm:

    Linf, L2   apgd-ce 1 restart,  apgd-t 9 targets
    L1         apgd-ce 5 restarts, apgd-t 5 targets, radii 3 eps, 2 eps, eps for .3, .3, .4 of the iterations
"""

from __future__ import annotations

from transferbench.attacks import parameters, require
from transferbench.attacks.apgd_ball import BallAPGD
from transferbench.attacks.apgd_base import APGD, Objective
from transferbench.attacks.apgd_l1 import L1APGD, single_radius, three_radii
from transferbench.base.errors import InputError
from transferbench.base.specifications import AttackSpec
from transferbench.threats import L1Ball, L2Ball, LinfBall, Threat

IDS = {
    "apgd-ce": "Auto-PGD on the cross-entropy",
    "apgd-dlr": "Auto-PGD on the difference-of-logits ratio",
    "apgd-t": "Auto-PGD on the targeted DLR, one try per target class",
    "l1-screen": "10 iterations of Auto-PGD at the target radius, before the L1 chain; counted separately",
}
PARAMETERS = {
    "apgd-ce": {"n_iter": 100, "restarts": 0, "large_radii": True, "eot": 0},
    "apgd-dlr": {"n_iter": 100, "restarts": 0, "large_radii": True, "eot": 0},
    "apgd-t": {"n_iter": 100, "targets": 0, "large_radii": True, "order": "logits", "eot": 0},
    "l1-screen": {"n_iter": 10, "eot": 0},
}
VERSION = 1

_OBJECTIVES: dict[str, Objective] = {"apgd-ce": "ce", "apgd-dlr": "dlr", "apgd-t": "dlr-targeted"}

SCREEN = AttackSpec.of("l1-screen")
"""The first try of an L1 chain: APGD at the target radius with a random start of its own.

The protocol's iterations at 3 eps and 2 eps are outside the ball, so that even an example that is fooled immediately
costs 62 passes; the screen needs a few. It can only add judged hits, which are counted separately; replay omits it."""


def build(spec: AttackSpec, threat: Threat, num_classes: int) -> APGD:
    """Parameters: n_iter=100; restarts=0 (apgd-ce, apgd-dlr) or targets=0 (apgd-t), 0 being the protocol's number;
    large_radii=True (L1 only), the protocol's start at 3 eps; order=logits|malt (apgd-t), what ranks the target classes
    (engine/target_order.py); eot=0, the number of draws of every gradient, 0 being 20 for a randomised model and 1 for
    others (engine/draws.py). l1-screen: n_iter=10.

    InputError for a bad value, large_radii outside L1, or apgd-dlr below 3 classes.
    """
    ball = require(spec, threat, LinfBall, L2Ball, L1Ball)
    l1 = isinstance(ball, L1Ball)
    if spec.id == SCREEN.id:
        if not isinstance(ball, L1Ball):
            raise InputError(f"attack {SCREEN.id} is a step of the L1 chain, not of {ball.name}")
        n_iter = int(parameters(spec)["n_iter"])
        if n_iter < 1:
            raise InputError(f"attack {SCREEN.id}: n_iter must be at least 1")
        return L1APGD(SCREEN.id, "ce", 1, ball, single_radius(ball.radius, n_iter))
    targeted = spec.id == "apgd-t"
    params = parameters(spec)
    if not l1 and "large_radii" in dict(spec.params):
        raise InputError(f"attack {spec.id}: large_radii is an option of the L1 attack, not of {ball.name}")
    if params.get("order", "logits") not in ("logits", "malt"):
        raise InputError(f"attack {spec.id}: order={params['order']!r} is not one of logits, malt")
    n_iter = int(params["n_iter"])
    tries = int(params["targets" if targeted else "restarts"])
    if n_iter < 1:
        raise InputError(f"attack {spec.id}: n_iter={n_iter} must be at least 1")
    if tries < 0:
        name = "targets" if targeted else "restarts"
        raise InputError(f"attack {spec.id}: {name}={tries} must be at least 1, or 0 for the protocol's number")
    if spec.id == "apgd-dlr" and num_classes < 3:
        raise InputError("attack apgd-dlr needs 3 classes: use apgd-ce, apgd-t")
    if tries == 0:
        tries = (5 if l1 else 9) if targeted else (5 if l1 else 1)
    if targeted:
        tries = min(tries, num_classes - 1)
    if isinstance(ball, L1Ball):
        phases = (three_radii if params["large_radii"] else single_radius)(ball.radius, n_iter)
        return L1APGD(spec.id, _OBJECTIVES[spec.id], tries, ball, phases)
    return BallAPGD(spec.id, _OBJECTIVES[spec.id], tries, ball, n_iter)
