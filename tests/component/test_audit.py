"""Index and files compared: what disagrees is found, what is merely on its way is not."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from engine.audit import Audit, Finding, Kind, compare
from engine.blobdir import BlobDirectory
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_views import BlobView
from engine.layout import Layout
from engine.rebuild import rebuild
from tests.fakes.caches import BUSYBOX
from tests.fakes.damage import blob_path
from tests.fakes.stocked import Upstreams, pull_image
from tests.fakes.upstream_content import Image, digest_of

pytestmark = pytest.mark.anyio


@pytest.fixture
async def image(tmp_path: Path) -> Image:
    upstreams = Upstreams()
    async with upstreams.cache(tmp_path) as cache:
        return await pull_image(cache, upstreams, BUSYBOX, "1.35")


async def do_nothing(seconds: float) -> None:
    """The pause before the second look."""


async def audit(path: Path, *, pause: object = do_nothing) -> list[Finding]:
    async with ReadOnlyConnections(Layout(path).index_path) as connections:
        index = IndexInspection(connections)
        return await Audit(index, BlobDirectory(Layout(path)), pause).run()  # type: ignore[arg-type]  # a double


async def test_a_sound_cache_has_no_findings(tmp_path: Path, image: Image) -> None:
    assert await audit(tmp_path) == []


async def test_each_disagreement_is_found_with_its_path_and_what_to_do(
    tmp_path: Path, image: Image
) -> None:
    lost, cut = image.layers
    blob_path(tmp_path, lost).unlink()
    blob_path(tmp_path, cut).chmod(0o644)
    blob_path(tmp_path, cut).write_bytes(b"short")
    found = digest_of(b"found")
    blob_path(tmp_path, found).parent.mkdir(parents=True, exist_ok=True)
    blob_path(tmp_path, found).write_bytes(b"found")
    foreign = blob_path(tmp_path, image.config).with_name("README")
    foreign.write_text("mine")
    beside = tmp_path / "blobs" / "lost+found"
    beside.mkdir()
    findings = {each.path: each for each in await audit(tmp_path)}
    assert {path: each.kind for path, each in findings.items()} == {
        blob_path(tmp_path, lost): Kind.MISSING_FILE,
        blob_path(tmp_path, cut): Kind.WRONG_SIZE,
        blob_path(tmp_path, found): Kind.UNKNOWN_FILE,
        foreign: Kind.FOREIGN_FILE,
        beside: Kind.FOREIGN_FILE,
    }
    assert all(each.action for each in findings.values())
    assert findings[blob_path(tmp_path, lost)].digest == lost


async def test_what_agrees_at_the_second_look_is_no_finding(tmp_path: Path, image: Image) -> None:
    path = blob_path(tmp_path, image.layers[0])
    aside = tmp_path / "aside"
    path.rename(aside)

    async def arrive(seconds: float) -> None:
        aside.rename(path)

    assert await audit(tmp_path, pause=arrive) == []


async def test_a_miscount_is_found_and_rebuilding_counts_anew(tmp_path: Path, image: Image) -> None:
    with closing(sqlite3.connect(Layout(tmp_path).index_path)) as connection, connection:
        connection.execute("UPDATE usage SET disk_bytes = disk_bytes + 1")
    assert [each.kind for each in await audit(tmp_path)] == [Kind.MISCOUNTED]
    await rebuild(tmp_path)
    assert await audit(tmp_path) == []


def blob_view(state: str, size_bytes: int) -> BlobView:
    return BlobView(digest_of(b""), size_bytes, "blob", state, True, 0.0, 0.0, 1, None, 1)


@pytest.mark.parametrize(
    ("row", "size_bytes", "kind"),
    [
        (blob_view("valid", 5), 5, None),
        (blob_view("valid", 5), 4, Kind.WRONG_SIZE),
        (blob_view("valid", 5), None, Kind.MISSING_FILE),
        (blob_view("evicting", 5), None, None),
        (blob_view("evicting", 5), 4, None),
        (None, 5, Kind.UNKNOWN_FILE),
        (None, None, None),
    ],
)
def test_a_row_and_a_file_are_compared(
    row: BlobView | None, size_bytes: int | None, kind: Kind | None
) -> None:
    verdict = compare(row, size_bytes)
    assert (verdict and verdict[0]) == kind


async def test_a_rebuild_takes_up_files_and_drops_rows_keeping_what_the_index_knew(
    tmp_path: Path, image: Image
) -> None:
    blob_path(tmp_path, image.layers[0]).unlink()
    found = digest_of(b"found")
    blob_path(tmp_path, found).parent.mkdir(parents=True, exist_ok=True)
    blob_path(tmp_path, found).write_bytes(b"found")
    done = await rebuild(tmp_path)
    assert (done.tally.adopted_count, done.tally.dropped_count) == (1, 1)
    assert (done.damage, done.set_aside) == (None, None)
    async with ReadOnlyConnections(Layout(tmp_path).index_path) as connections:
        assert len(await IndexInspection(connections).list_tags(BUSYBOX)) == 1
    assert await audit(tmp_path) == []


async def test_a_rebuild_anew_knows_the_files_and_nothing_else(
    tmp_path: Path, image: Image
) -> None:
    done = await rebuild(tmp_path, is_anew=True)
    assert done.tally.adopted_count == done.tally.file_count == 4
    assert done.set_aside is not None
    assert done.set_aside.exists()
    async with ReadOnlyConnections(Layout(tmp_path).index_path) as connections:
        assert await IndexInspection(connections).list_locations() == []
    assert await audit(tmp_path) == []


async def test_a_rebuild_replaces_what_only_a_full_reading_finds_damaged(
    tmp_path: Path, image: Image
) -> None:
    path = Layout(tmp_path).index_path
    Layout(tmp_path).snapshot_path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        (root_page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'link_by_digest'"
        ).fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((root_page - 1) * page_bytes + 8)
        file.write(b"\xff" * 64)
    done = await rebuild(tmp_path)
    assert done.damage
    assert done.set_aside is not None
    assert done.set_aside.exists()
    assert await audit(tmp_path) == []
