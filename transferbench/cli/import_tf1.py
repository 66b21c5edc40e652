"""`transferbench import-tf1`: the papers' TensorFlow checkpoints."""

from __future__ import annotations

import shlex
from typing import Any

import click

from transferbench.cli import options
from transferbench.cli.output import say


@click.command("import-tf1", cls=options.Command, short_help="A TensorFlow 1 checkpoint of LwF, Madry, IGAM.")
@click.argument("checkpoint", type=options.FOLDER, metavar="CHECKPOINT")
@click.option("--network", required=True, metavar="ID", help="madry-wrn-32-10, or igam-wrn-32-10 of IGAM's students.")
@click.option("--dataset", required=True, metavar="ID", help="What it was trained on: its classes' names.")
@click.option("--out", required=True, type=options.FOLDER, metavar="DIR", help="The folder to write.")
@click.option("--head", metavar="NAME", help="The classifier, where there are two (IGAM's teachers).")
def command(**given: Any) -> None:
    """Read CHECKPOINT (a folder, or the name before .index) and write model.safetensors with its card."""
    from transferbench.models.victims import path_id
    from transferbench.workflows import import_checkpoint

    request = import_checkpoint.ImportRequest(**given)
    done = import_checkpoint.import_tf1(request)
    say(f"classifier {done.head}, {len(done.card.classes)} classes")
    if done.difference is None:
        say("TensorFlow is not installed: logits were not compared with its own (pip install 'transferbench[tf]')")
    else:
        say(f"logits differ from TensorFlow's by {done.difference:.1e} of their range")
    line = shlex.join(["transferbench", "eval", "--model", path_id(request.out)])
    say(f"wrote {request.out}/; attack it: {line}")
