"""A child process that adopts and kills itself at the n-th disk call."""

import os
from pathlib import Path

from engine.acts import hold_lock
from engine.adoption_intake import Intake, Mode
from engine.adoption_run import adopt
from engine.adoption_survey import survey
from engine.blobdir import BlobDirectory
from engine.layout import Layout
from engine.settings import EngineSettings
from tests.fakes.fuse import Fuse, run_until
from tests.fakes.memory_upstream import SETTINGS


async def adopt_all(registry: Path, data: Path, mode: Mode) -> None:
    """Adopt as the tool does."""
    layout = Layout(data)
    blob_directory = BlobDirectory(layout)
    blob_directory.prepare()
    with hold_lock(layout):
        blob_directory.clean()
        intake = Intake(blob_directory, (mode,), lambda count: None)
        settings = EngineSettings(data, (SETTINGS,))
        await adopt(survey(registry), "docker.io", settings, intake, lambda finding: None)


def adopt_until(registry: Path, data: Path, mode: Mode, number: int) -> int:
    """Adopt in a child that is killed at disk call `number`; return its wait status."""

    async def work(fuse: Fuse) -> None:
        os.link = fuse.wrap(os.link)
        await adopt_all(registry, data, mode)

    return run_until(number, work)
