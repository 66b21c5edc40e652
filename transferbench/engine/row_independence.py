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
"""The largest difference that counts as rounding, as a share of the logit range. A batch of one image takes other
convolution algorithms than one of sixteen; float16 and bfloat16 inside the network round at 5e-4 and 4e-3."""

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
    for rows in {max(1, len(company) // 4), max(1, len(half) - 1)}:
        yield every[:rows], logits(at_least(company[:rows], 2))[:rows]
    yield every[:1], logits(company[:1].repeat(4, *[1] * (company.dim() - 1)))[:1]
    if most > len(company):
        tiled = company.repeat(-(-most // len(company)), *[1] * (company.dim() - 1))[:most]
        yield every, logits(tiled)[-len(company) :].roll(most % len(company), 0)
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
    """bool [B]: rows that differ by more than the share of the batch's logit range."""
    spread = max(float(expected.max() - expected.min()), 1e-12)
    return (expected - answer).abs().amax(1) > share * spread
