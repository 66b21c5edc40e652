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
}

COST: dict[str, str] = {
    "victim": "id of the trained network",
    "train_seconds": "wall time of its training",
    "seconds": "wall time of its evaluation",
    "wasted": "backwards of cancelled tries",
    "peak_memory_mb": "peak resident memory of the process, MiB",
    "hardware": "what it ran on",
}
