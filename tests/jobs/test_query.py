"""The job of a query attack: its name and key, its parts, its files, its start at crafted points."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.nets import Around
from support.tiny_suite import Recorder
from torch import Tensor

from transferbench.base.errors import InputError
from transferbench.base.query_rates import QueryRate, success_rates
from transferbench.base.results import JudgeResult, QueryResult, from_json, to_json
from transferbench.base.settings import RunSettings
from transferbench.base.specifications import AttackSpec, Keep, ThreatModel
from transferbench.jobs.craft import CraftJob
from transferbench.jobs.evaluation import BatchDependentError
from transferbench.jobs.inputs import ImagesInput
from transferbench.jobs.job import Results
from transferbench.jobs.judge import JudgeJob
from transferbench.jobs.networks import PublicNetwork, TrainedNetwork
from transferbench.jobs.query import QueryJob
from transferbench.jobs.resources import Resources
from transferbench.jobs.train import TrainJob
from transferbench.models import victims
from transferbench.scheduling.scheduler import Scheduler
from transferbench.store.store import Store, key_of

IMAGES = ImagesInput("letters", "", 0, 40)
THREAT = ThreatModel.parse("Linf", "0.12")
VICTIM, SOURCE = PublicNetwork("letters-natural"), PublicNetwork("letters-madry")
CRAFT = CraftJob("craft", SOURCE, IMAGES, AttackSpec.of("source-pgd", k=5), THREAT, 0)
SIMBA = QueryJob("simba", VICTIM, IMAGES, SOURCE, AttackSpec.of("simba-ods", queries=20), THREAT, 0)
SQUARE = replace(SIMBA, label="square", attack=AttackSpec.of("square-start", queries=20), crafted=CRAFT)


def test_it_is_named_by_all_that_decides_it() -> None:
    train = TrainJob("t", "v", "natural", (("lr", 0.1), ("steps", 2)), "digits")
    trained = TrainedNetwork(train)
    others = [
        replace(SIMBA, network=SOURCE),
        replace(SIMBA, source=VICTIM),
        replace(SIMBA, source=trained),
        replace(SIMBA, network=trained),
        replace(SIMBA, seed=1),
        replace(SIMBA, images=replace(IMAGES, stop=39)),
        replace(SIMBA, attack=AttackSpec.of("simba-ods", queries=21)),
        replace(SIMBA, threat=ThreatModel.parse("Linf", "0.11")),
        replace(SIMBA, batch=32),
        SQUARE,
        replace(SQUARE, crafted=replace(CRAFT, seed=1)),
    ]
    assert len({job.name for job in [SIMBA, *others]}) == len(others) + 1
    assert replace(SIMBA, label="another label").name == SIMBA.name
    assert pickle.loads(pickle.dumps(SQUARE)) == SQUARE
    assert replace(SQUARE, network=trained).inputs == (train, CRAFT)
    assert replace(SIMBA, source=trained).inputs == (train,)


@pytest.mark.parametrize(
    ("attack", "crafted", "message"),
    [
        (SQUARE.attack, None, "starts at crafted points: name the attack"),
        (SIMBA.attack, CRAFT, "takes no crafted points"),
        (AttackSpec.of("square-start", start="stripes"), CRAFT, "takes no crafted points"),
        (SQUARE.attack, replace(CRAFT, threat=ThreatModel.parse("Linf", "0.2")), "another threat"),
        (AttackSpec.of("source-pgd"), None, "asks no queries"),
    ],
)
def test_a_start_that_does_not_fit_is_refused_when_the_job_is_made(
    attack: AttackSpec, crafted: CraftJob | None, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        replace(SIMBA, attack=attack, crafted=crafted)


def test_a_plan_runs_it_once_and_its_first_query_is_the_transfer_rate(tmp_path: Path) -> None:
    judge = JudgeJob("judge", VICTIM, CRAFT.images, CRAFT)
    jobs = [CRAFT, judge, SIMBA, SQUARE]
    settings, again = RunSettings(), Recorder()
    with Store(tmp_path) as store:
        scheduler = Scheduler(store, settings)
        results = scheduler.run(jobs, Recorder())
        assert not scheduler.failures
        Scheduler(store, settings).run(jobs, again)
        assert again.run == []
        square, judged = scheduler.results.of(SQUARE), scheduler.results.of(judge)
        assert isinstance(judged, JudgeResult)
        flips = judged.any_flip()
        assert 0 < sum(flips) < 40
        assert [number == 1 for number in square.queries] == flips
        assert square.correct == judged.correct
        rates = success_rates(square.queries, square.budget)
        assert rates[0] == QueryRate(1, sum(flips), sum(judged.correct))
        assert from_json(QueryResult, json.loads(json.dumps(to_json(square)))) == replace(square, key="")

        # The key has the networks, the data, the attack's version and the crafted points.
        resources = scheduler.resources
        content = SQUARE.content(resources, scheduler.results)
        assert content["input 0"] == scheduler.results.of(CRAFT).examples.sha256
        assert content["victim"] != content["source"] == resources.network(SOURCE.input(results)).card.identity
        assert content["version"] == [1]

        file = square.examples
        assert file is not None
        kept = store.read_examples(file)
        fooled = [place for place, number in enumerate(square.queries) if number > 0]
        images = resources.examples(IMAGES)
        assert torch.equal(kept["ids"], images.ids[fooled])
        far = (kept["points"].double() - images.pixels[fooled].double()).abs()
        assert float(far.max()) <= 0.12 + 2**-23
        with torch.no_grad():
            wrong = resources.network(VICTIM.input(results)).model(kept["points"]).argmax(1) != images.labels[fooled]
        assert bool(wrong.all())
        assert SQUARE.is_intact(square, store, Keep.parse("sample:3"))
        assert not SQUARE.is_intact(square, store, Keep.parse("all"))
        (tmp_path / file.path).write_bytes(b"damaged")
        assert not SQUARE.is_intact(square, store, Keep.parse("fooled"))


def test_parts_are_the_whole(tmp_path: Path) -> None:
    settings = RunSettings(root=tmp_path)
    resources, results = Resources(settings), Results()
    with Store(tmp_path) as store:
        output = CRAFT.run(resources, results)
        results[CRAFT.name] = CRAFT.keep(store, key_of(CRAFT, CRAFT.content(resources, results)), output)
    for job in (SIMBA, SQUARE):
        whole = job.run(resources, results)
        parts = job.parts(3)
        assert len(parts) == 3
        joined = job.joined([part.run(resources, results) for part in parts])
        assert joined.result == whole.result
        for name in ("ids", "points"):
            assert torch.equal(joined.tensors[name], whole.tensors[name])
    assert replace(SIMBA, batch=64).parts(3) == [replace(SIMBA, batch=64)]


class Noisy(Around):
    """Answers with noise on its logits."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + 0.3 * torch.randn_like(logits)


def test_a_randomised_victim_is_asked_in_batches_of_one_size_and_judged_on_many_draws() -> None:
    resources, results = Resources(RunSettings()), Results()
    public = victims.load("letters-natural")
    resources.provide_network("noisy", replace(public, model=Noisy(public.model)))
    job = replace(SIMBA, network=PublicNetwork("noisy"), attack=AttackSpec.of("simba-ods", queries=4))
    with pytest.raises(BatchDependentError) as caught:
        job.run(resources, results)
    job.mark_batch_dependent(resources, results, caught.value)
    adapted = job.adapted(resources, results)
    assert adapted.batch is not None
    assert adapted.draws > 1
    result = adapted.run(resources, results).result
    assert isinstance(result, QueryResult)
    assert "randomised" in result.flags
    assert result.batch == adapted.batch
    hits = sum(number > 0 for number in result.queries)
    assert hits > 0
    assert result.cost.checks >= adapted.draws * (40 + result.victim_queries + hits)


def test_a_source_whose_answers_depend_on_the_batch_changes_no_other_job() -> None:
    resources, results = Resources(RunSettings()), Results()
    judge = JudgeJob("judge", VICTIM, CRAFT.images, CRAFT)
    SIMBA.mark_batch_dependent(resources, results, BatchDependentError(32, 1))
    assert SIMBA.adapted(resources, results) == replace(SIMBA, batch=32)
    assert judge.adapted(resources, results) == judge
    resources = Resources(RunSettings())
    judge.mark_batch_dependent(resources, results, BatchDependentError(16, 20))
    assert SIMBA.adapted(resources, results) == replace(SIMBA, batch=16, draws=20)
