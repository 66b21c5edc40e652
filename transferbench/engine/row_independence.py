"""Whether a network's answer to an image depends on the other images of the batch, or on its place among them.

Batch norm on batch statistics, noise seeded inside the forward pass and attention over the batch are examples. The
verdicts of such a network belong to one batch size and one order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.engine.judge import at_least

SHARE, LOW_PRECISION_SHARE = 1e-4, 2e-2
"""The largest difference that counts as rounding, as a share of the logits' spread. A batch of one image takes other
convolution algorithms than one of sixteen; float16 and bfloat16 inside the network round at 5e-4 and 4e-3."""

_SIZES = (4, 7, 10, 13)
"""Smaller batches, for a company of 16."""
_LARGE = 65
"""A larger batch that is asked for even where the attack's is smaller."""

Logits = Callable[[Tensor], Tensor]


def mixes_rows(logits: Logits, company: Tensor, most: int, share: float = SHARE) -> bool:
    """Whether any row of a batch [B, ...] of two images or more is answered differently alone, in other company, in
    another order, at another place or at another batch size, `most` rows among them."""
    expected = logits(company)
    return any(differs(expected[rows], answer, share) for rows, answer in _answers(logits, company, most))


def _answers(logits: Logits, company: Tensor, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(positions in the company, their logits in another batch)."""
    every = torch.arange(len(company), device=company.device)
    half = every[: len(every) // 2]
    yield every, logits(company.flip(0)).flip(0)
    yield half, logits(torch.cat([1 - company[len(half) :], company[half]]))[-len(half) :]
    for rows in sorted({max(1, len(company) * part // 16) for part in _SIZES}):
        yield every[:rows], logits(at_least(company[:rows], 2))[:rows]
    yield every[:1], logits(company[:1].repeat(4, *[1] * (company.dim() - 1)))[:1]
    for rows in {most, max(most, _LARGE) if most else 0}:
        if rows > len(company):
            tiled = company.repeat(-(-rows // len(company)), *[1] * (company.dim() - 1))[:rows]
            yield every, logits(tiled)[-len(company) :].roll(rows % len(company), 0)
    try:
        yield every[:1], logits(company[:1])
    except InputError:
        # The engine never asks for one row (it pads to four); a network that squeezes its batch away is asked above.
        return


def company(sample: Tensor, rows: int) -> Tensor:
    """[rows, ...]: the images, with darker copies of them where they are fewer."""
    repeats = -(-rows // len(sample))
    return torch.cat([sample * (1 - 0.5 * number / repeats) for number in range(repeats)])[:rows]


def differs(expected: Tensor, answer: Tensor, share: float) -> bool:
    """Whether any row of the answer [B, C] is further from the expected one than rounding."""
    return bool(differing(expected, answer, share).any())


def differing(expected: Tensor, answer: Tensor, share: float) -> Tensor:
    """bool [B]: rows of which a logit differs by more than the share of the logits' spread, or of itself.

    The spread is ten times the median distance of a logit from its row's median, the range of usual logits: one masked
    class at -10000 does not make every difference small. A fifth of the share of the logit itself is allowed too, for
    logits far from 0.
    """
    spread = 10 * (expected - expected.median(1, keepdim=True).values).abs().flatten().median()
    if expected.shape[1] == 2:
        # The median of two is one of them: half of all distances are 0.
        spread = 5 * (expected[:, 0] - expected[:, 1]).abs().median()
    allowed = share * spread + share / 5 * expected.abs()
    return ((expected - answer).abs() > allowed.clamp(min=1e-30)).any(1)
