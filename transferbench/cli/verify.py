"""`transferbench verify`: check a run's stored points, predictions and counts again."""

from __future__ import annotations

from pathlib import Path

import click

from transferbench.base.settings import RunSettings
from transferbench.cli import options


@click.command(
    "verify", cls=options.Command, short_help="Check a run's stored points, predictions and counts again, stamp it."
)
@options.run_folder
@options.places
@options.workers
def command(dir: Path, device: str | None, data_dir: Path | None, model_dir: Path | None, workers: int | None) -> None:
    """Check the stored points, predictions and counts of the run in DIR independently, and stamp its records."""
    from transferbench.cli import console
    from transferbench.cli.verification_progress import VerificationProgress
    from transferbench.results.verification import verify
    from transferbench.workflows import settings as settings_check

    folders = RunSettings(data_dir=data_dir, model_dir=model_dir)
    settings = settings_check.placed(folders, device, workers)
    # What is said is what will be started.
    records = len(list((dir / "records").glob("*.json")))
    if 0 < records < settings.workers:
        settings = settings_check.placed(folders, device, records)
    progress = VerificationProgress(settings.place)
    console.exit_on(verify(dir, settings, progress.verified, progress.begin))
