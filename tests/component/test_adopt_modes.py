"""How files come in: cloned, linked or copied, and never at the cost of the registry's own."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.component.adopting import adopt, image_of, storage_of
from tests.fakes.damage import iter_blob_files, truncate
from tests.fakes.images import Image
from tests.fakes.registry_storage import Storage, digests_of
from tests.system.conftest import skip_client
from tools.cli import main


@pytest.fixture
def image() -> Image:
    return image_of("library/busy", b"one" * 2000, b"two" * 3000)


@pytest.fixture
def storage(tmp_path: Path, image: Image) -> Storage:
    return storage_of(tmp_path / "registry", image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_layer_is_linked_where_it_is_ours_alone_and_its_mode_stays(
    storage: Storage, data: Path, image: Image
) -> None:
    layer = image.top.layers[0].blob.digest
    storage.blob(layer).chmod(0o640)
    done = adopt(storage.directory, data)
    assert done.report["hardlink_count"] == len(digests_of(image)) - 1
    (linked,) = [path for path in iter_blob_files(data) if path.name in layer]
    assert linked.samefile(storage.blob(layer))
    assert linked.stat().st_mode & 0o777 == 0o640


def test_a_manifest_is_copied_as_the_registry_may_write_it_in_place(
    storage: Storage, data: Path, image: Image
) -> None:
    done = adopt(storage.directory, data, "--mode", "hardlink")
    assert (done.code, done.report["copy_count"]) == (0, 1)
    (copied,) = [path for path in iter_blob_files(data) if path.name in image.top.blob.digest]
    assert copied.stat().st_nlink == 1
    assert copied.stat().st_mode & 0o777 == 0o444


def test_what_others_may_write_is_copied(storage: Storage, data: Path, image: Image) -> None:
    layer = storage.blob(image.top.layers[0].blob.digest)
    layer.chmod(0o664)
    done = adopt(storage.directory, data)
    assert done.report["copy_count"] == 2
    assert layer.stat().st_nlink == 1


def test_a_mode_that_was_asked_for_is_not_replaced_by_another(
    storage: Storage, data: Path, image: Image
) -> None:
    layer = storage.blob(image.top.layers[0].blob.digest)
    layer.chmod(0o664)
    done = adopt(storage.directory, data, "--mode", "hardlink")
    assert done.code == 2
    assert f"{layer} cannot come in by hardlink: others than we may write to it" in done.stderr
    assert list((data / "partial").iterdir()) == []


def test_where_nothing_can_be_cloned_that_is_said(storage: Storage, data: Path) -> None:
    if _can_reflink(data.parent):
        pytest.skip("not run: everything can be cloned here")
    done = adopt(storage.directory, data, "--mode", "reflink")
    assert done.code == 2
    assert "cannot come in by reflink: " in done.stderr


@contextmanager
def mounted_xfs(directory: Path) -> Iterator[Path]:
    """A small file system that can clone files; skips where there can be none."""
    if os.geteuid() != 0:
        skip_client("reflink", "only root can mount a file system")
    file, place = directory / "xfs.img", directory / "xfs"
    place.mkdir()
    with file.open("wb") as image:
        image.truncate(320 * 1024**2)
    try:
        make = ["mkfs.xfs", "-q", str(file)]
        for command in (make, ["mount", "-o", "loop", str(file), str(place)]):
            subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        skip_client("reflink", f"no XFS here: {exc}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_where_files_can_be_cloned_they_are(tmp_path: Path, image: Image) -> None:
    with mounted_xfs(tmp_path) as place:
        storage, data = storage_of(place / "registry", image), place / "data"
        storage.blob(image.top.layers[0].blob.digest).chmod(0o666)  # whoever may write to it
        done = adopt(storage.directory, data)
        assert done.report["reflink_count"] == len(digests_of(image))
        modes = {path.stat().st_mode & 0o777 for path in iter_blob_files(data)}
        assert modes == {0o444}
        truncate(storage.blob(image.top.layers[0].blob.digest), 0)
        verified = CliRunner().invoke(main, ["verify-digests", "--data", str(data)])
        assert verified.exit_code == 0, verified.output


def _can_reflink(directory: Path) -> bool:
    source, clone = directory / "probe", directory / "probe-2"
    source.write_text("x")
    done = subprocess.run(
        ["cp", "--reflink=always", source, clone], capture_output=True, check=False
    )
    return done.returncode == 0
