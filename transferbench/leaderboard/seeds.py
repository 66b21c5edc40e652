"""Two victims over several seeds on the same images: an exact test and an interval whose unit is the image.

Verdicts of one image in several seeds are not independent: what is hard for a method in one seed tends to be hard for
it in the next. McNemar's test on the discordant pairs of all seeds together takes them for independent and rejects too
often: at 200 images, three seeds, a discordant share of .05 each way and half of the images alike in every seed, it
rejects 14 % of true null hypotheses at .05, and 24 % where all are alike; the test here 4 and 3 %
(tests/leaderboard/test_seeds.py measures both).

Both are about these trainings on further images of the same kind. What another training would give is not in them:
that is what the differences of the single seeds show.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtr
from scipy.stats import binom

from transferbench.leaderboard.statistics import paired_difference


class PairedCounts(NamedTuple):
    """`only_first` and `only_second` count verdicts, over all seeds, that are 1 for one victim alone; `difference` is
    the mean over seeds of the first rate less the second, as a share of the images, with its 95 % interval; `p` is
    two-sided."""

    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def paired(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> PairedCounts:
    """Compare verdicts [seeds, images] of two victims; one seed is the exact McNemar test with `paired_difference`.

    The test is conditional and exact. D is an image's number of seeds in which the first alone has a 1, less those in
    which the second alone has. Under the null hypothesis an image's verdicts have the same joint distribution when the
    victims change places in all of its seeds together, so that, given |D| of every image, signs are independent fair
    coins; p is the probability of a sum at least as far from 0. With one seed |D| is 1 for the discordant images: that
    is McNemar's test. Where rates are equal but D is skewed the level of several seeds holds for many discordant images
    only: of 200 images of which 1 % favour one victim in all of five seeds and 10 % the other in one of ten, it rejects
    in 12 %, while the interval covers in 97 %.

    The interval is `paired_difference` at the effective number of images: n times the variance that verdicts would
    have if they were independent, divided by that of the images' means over seeds, between n and n times the seeds.
    One image that is alike in all seeds is added to both variances: few discordant images may lie in different seeds by
    chance. By simulation (4000 draws each; 2, 3 and 5 seeds, 50 and 200 images, discordant shares from .005 to .2,
    none to all of the images alike in every seed) it covers at least 94.3 %; without that image 88.6 %. At 1000 images
    (2 and 3 seeds, 1500 draws) the lowest of 110 figures is 93.7 %, with a standard error of .6.
    """
    seeds, n = first.shape
    both = first & second
    only_first, only_second = int((first & ~both).sum()), int((second & ~both).sum())
    sums = first.sum(axis=0, dtype=np.int64) - second.sum(axis=0, dtype=np.int64)
    images = _effective(sums, only_first + only_second, seeds)
    shares = only_first / (n * seeds), only_second / (n * seeds)
    _, low, high = paired_difference(shares[0] * images, shares[1] * images, images)
    difference = (only_first - only_second) / (n * seeds)
    return PairedCounts(only_first, only_second, difference, min(low, difference), max(high, difference), _signs(sums))


def _effective(sums: NDArray[np.int64], discordant: int, seeds: int) -> float:
    """The effective number of images of `paired`."""
    n = len(sums)
    square = (sums.sum() / (n * seeds)) ** 2
    independent = discordant / (n * seeds) - square + 1 / n
    of_means = float((sums**2).sum()) / (n * seeds**2) - square + 1 / n
    return n * min(max(independent / of_means, 1.0), float(seeds))


def _signs(sums: NDArray[np.int64]) -> float:
    """P(|sum of +-|D|| >= |sum of D|) over fair independent signs."""
    counts = np.bincount(np.abs(sums))
    total = int(sums.sum())
    if len(counts) <= 2:
        discordant = int(counts[1:].sum())
        return min(1.0, 2 * float(bdtr((discordant - abs(total)) // 2, discordant, 0.5)))
    # Of the images with |D| = k, as many as B are positive: the sum is 2 sum(k B) - sum(k counts).
    distribution = np.ones(1)
    for k, count in enumerate(counts):
        if k and count:
            positive = np.zeros(k * count + 1)
            positive[::k] = binom.pmf(np.arange(count + 1), count, 0.5)
            distribution = np.convolve(distribution, positive)
    far = np.abs(2 * np.arange(len(distribution)) - (len(distribution) - 1)) >= abs(total)
    return min(1.0, float(distribution[far].sum()))
