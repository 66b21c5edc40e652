"""--stratified: the first of each class in turn, in the record and in the names of what was attacked."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from support.tiny_suite import tiny

from transferbench import data
from transferbench.base.errors import InputError
from transferbench.cli.main import main
from transferbench.results.records import Record, dump, read, read_all
from transferbench.scheduling.plan import plan

BOARD = Path(__file__).parents[2] / "leaderboards" / "letters-to-digits"


def in_turn(labels: list[int], n: int) -> list[int]:
    """Positions, round by round."""
    queues: dict[int, list[int]] = defaultdict(list)
    for position, label in enumerate(labels):
        queues[label].append(position)
    rounds: list[list[int]] = []
    for queue in queues.values():
        for place, position in enumerate(queue):
            rounds += [[] for _ in range(place + 1 - len(rounds))]
            rounds[place].append(position)
    return [position for one in rounds for position in sorted(one)][:n]


@pytest.mark.parametrize("id", ["digits", "letters", "digits[3,8,0]"])
def test_the_examples_are_those_of_each_class_in_turn(id: str) -> None:
    test = data.load(id, "test")
    limit = test.attackable or len(test)
    labels = test.labels[:limit].tolist()
    for n in (1, 7, 40, limit):
        found = test.first(n, stratified=True)
        assert found.ids.tolist() == [int(test.ids[at]) for at in in_turn(labels, n)]
    even = Counter(test.first(3 * len(test.classes), stratified=True).labels.tolist())
    assert set(even.values()) == {3}
    assert test.first(limit, stratified=True).ids.sort().values.equal(test.ids[:limit].sort().values)
    with pytest.raises(InputError, match=f"at most {limit}"):
        test.first(limit + 1, stratified=True)


def test_a_class_that_is_used_up_leaves_its_turns_to_the_others() -> None:
    few = data.load("digits", "test").select([0, 1, 2, 3, 4, 5])
    labels = few.labels.tolist()
    assert few.first(6, stratified=True).ids.tolist() == [int(few.ids[at]) for at in in_turn(labels, 6)]


def test_eval_attacks_them_and_verify_finds_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "letters-madry", "--norms", "Linf", "--attacks", "fgsm", "--n", "52", "--workers", "1"]
    words += ["--source", "letters-natural", "--attacks-source", "source-pgd:k=2"]
    for name, more in (("plain", []), ("turn", ["--stratified"])):
        assert main([*words, *more, "--out", str(tmp_path / name)]) == 0
    assert "first 52, of each class in turn" in capsys.readouterr().out
    (plain,), (turn,) = read_all(tmp_path / "plain"), read_all(tmp_path / "turn")
    assert (plain.stratified, turn.stratified) == (None, True)
    assert turn.class_counts == [2] * 26
    assert plain.class_counts != turn.class_counts
    assert plain.data_fingerprint != turn.data_fingerprint
    assert set(plain.chains[0].jobs).isdisjoint(turn.chains[0].jobs)
    assert main(["verify", str(tmp_path / "turn")]) == 0
    assert main(["compare", str(tmp_path / "plain"), str(tmp_path / "turn")]) == 2
    assert "same examples" in capsys.readouterr().err
    # A record that leaves out how its examples were chosen does not pass.
    (path,) = (tmp_path / "turn" / "records").glob("*.json")
    values = json.loads(path.read_text())
    del values["stratified"]
    path.write_text(json.dumps(values))
    assert main(["verify", str(tmp_path / "turn")]) != 0


def test_the_default_changes_no_name_and_no_byte(tmp_path: Path) -> None:
    for path in sorted((BOARD / "records").glob("*.json"))[:3]:
        assert dump(read(path)) == path.read_text(encoding="utf-8")
    assert "stratified" in Record.model_fields
    suite = tiny(tmp_path)
    turned = suite.model_copy(update={"stratified": True})
    kinds = {}
    for name, one in (("plain", suite), ("turn", turned)):
        kinds[name] = {(job.kind, job.label): job.name for job in plan(one, (0,)).jobs}
    assert kinds["plain"].keys() == kinds["turn"].keys()
    for (kind, label), job in kinds["plain"].items():
        # Trainings and the clean accuracy of a whole split are the same work.
        same = kind == "train" or label.endswith(": clean")
        assert (kinds["turn"][kind, label] == job) == same, (kind, label)


def test_corrupted_images_have_their_own_order(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", "--model", "RB_Hendrycks2020AugMix_WRN@cifar10/corruptions", "--norms", "corruptions"]
    assert main([*words, "--stratified"]) == 2
    assert "published order" in capsys.readouterr().err
