"""The columns of leaderboard.csv and cost.csv, in order, each with its definition."""

from __future__ import annotations

LEADERBOARD: dict[str, str] = {
    "rank": "1 + the number of rows of the same suite, target, n and seed that beat this one in union accuracy "
    "(exact McNemar test, Holm-corrected, at .05); empty for incomplete rows",
    "victim": "id of the trained network; it ends in the seed",
    "method": "transfer method (plugin)",
    "source": "the pre-trained network it started from",
    "network": "architecture",
    "source_dataset": "what the source was trained on",
    "target_dataset": "what the victim was trained and attacked on",
    "n": "attacked test examples",
    "clean_acc": "accuracy on the n attacked examples before any attack, %",
    "linf_eps": "Linf radius, [0,1] pixel units",
    "linf_acc": "share of the n examples that survive the Linf chain, %",
    "l2_eps": "L2 radius",
    "l2_acc": "share that survives the L2 chain, %",
    "l1_eps": "L1 radius",
    "l1_acc": "share that survives the L1 chain, %",
    "union_acc": "share that survives all three chains, %",
    "pgd20_linf_acc": "share right at the end point of Madry PGD-20 (random start) at linf_eps, %",
    "source_clean_acc": "the source's own clean accuracy on its own task's n attacked examples, %",
    "source_linf_acc": "the source's Linf accuracy on its own task, same chain and radius, %",
    "source_l2_acc": "likewise L2, %",
    "source_l1_acc": "likewise L1, %",
    "source_union_acc": "likewise the union, %",
    "pretrained_eps": "Linf radius of the pre-trained-model attack",
    "pretrained_neurons": "k: penultimate neurons of the source driven one by one",
    "pretrained_asr": "share of the clean-correct examples that any of the k points flips; the attacker has the "
    "source alone, %",
    "noise_asr": "the control: the same for k draws of random signs at the same radius, %",
    "forwards": "rows forward through the net in all chains, cancelled tries apart",
    "backwards": "rows backward, likewise",
    "clean_acc_full": "clean accuracy on the whole test split, %",
    "n_full": "examples in the whole test split",
    "union_low": "lower end of the union's 95 % Wilson interval, %",
    "union_high": "upper end, %",
    "seed": "seed of the trainings and attacks",
    "suite": "suite",
    "change_clean": "clean_acc less source_clean_acc, points: what the transfer cost, or gained on an easier task",
    "change_linf": "linf_acc less source_linf_acc, points",
    "change_l2": "likewise L2",
    "change_l1": "likewise L1",
    "change_union": "likewise the union",
    "linf_expected": "expected Linf robustness: the mean robust accuracy over radii from 0 to linf_eps, by the "
    "trapezoid rule through the clean accuracy and the curve's radii, %; empty without a curve",
    "l2_expected": "likewise L2",
    "l1_expected": "likewise L1",
    "source_pgd_asr": "share of the clean-correct examples that PGD on the source alone flips, %",
    "source_pgd_noise_asr": "its control: as many draws of random signs as it has tries, %",
    "pretrained_seed_eps": "radius of the pre-trained-model attack in Renofeation's own normalised space, clipped "
    "there at +-2.2 (threat renofeation-seed)",
    "pretrained_seed_asr": "pretrained_asr in that threat, %",
    "noise_seed_asr": "its control: as many draws of random signs in that threat, %",
    "pretrained_asr_n": "pretrained_asr's numerator over all n, %",
    "noise_asr_n": "noise_asr's numerator over all n, %",
    **{
        f"{rate}_{end}": f"{'lower' if end == 'low' else 'upper'} end of the 95 % Wilson interval of {rate}, %"
        for rate in ("clean_acc", "linf_acc", "l2_acc", "l1_acc", "pgd20_linf_acc", "pretrained_asr", "noise_asr")
        for end in ("low", "high")
    },
    "flags": "what pre-flight or the run suspects (docs/protocol.md), separated by spaces",
    "card": "the victim's card, below model_cards/",
}

COST: dict[str, str] = {
    "victim": "id of the trained network",
    "train_seconds": "wall time of its training",
    "seconds": "wall time of its evaluation",
    "wasted": "backwards of cancelled tries",
    "checks": "rows through the original model alone: clean predictions, confirmations",
    "halvings": "how often the rows in flight were halved because memory ran out",
    "peak_memory_mb": "peak resident memory of the process, MiB",
    "hardware": "what it ran on",
}

TRANSFER: dict[str, str] = {
    "victim": "id of the trained network that was shown the set",
    "source": "the pre-trained network it was made with",
    "own": "yes where the victim was fine-tuned from that source",
    "attack": "how it was made; @ names its threat where that is not Linf",
    "tries": "points per example",
    "flipped": "examples that were correct on clean and wrong at any of them",
    "correct": "examples that were correct on clean",
    "asr": "flipped of correct, %",
    "asr_low": "lower end of its 95 % Wilson interval, %",
    "asr_high": "upper end, %",
    "noise_asr": "the same for as many draws of random signs, %",
}
