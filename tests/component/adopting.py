"""Runs `moorage adopt` in this process, on a small image."""

import json
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner

from tests.fakes.images import Image, layer_of, manifest_of
from tests.fakes.registry_storage import Storage
from tools.cli import main


def image_of(name: str, *files: bytes) -> Image:
    layers = [layer_of({f"file-{name}": data}) for data in files]
    return Image(name, "1", manifest_of(layers))


def storage_of(directory: Path, image: Image) -> Storage:
    """What a proxy has stored of one image."""
    storage = Storage(directory)
    storage.add_schedule()
    storage.add_image(image)
    return storage


@dataclass(frozen=True, slots=True)
class Done:
    """How an adoption ended."""

    code: int
    report: dict[str, object]
    stderr: str

    def findings(self) -> list[tuple[object, object]]:
        rows = self.report["findings"]
        assert isinstance(rows, list)
        return [(row["fault"], row["path"]) for row in rows]


def adopt(path: Path, data: Path, *options: str) -> Done:
    result = CliRunner().invoke(
        main, ["adopt", str(path), "--data", str(data), "--json", *options], env={}
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    report = json.loads(result.stdout) if result.stdout.startswith("{") else {}
    return Done(result.exit_code, report, result.stderr)
