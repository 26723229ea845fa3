"""Adopting a registry's storage: what is taken, what is not, and what is said of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.adoption_survey import survey
from tests.component.adopting import adopt, image_of, storage_of
from tests.fakes.damage import blob_path, flip_bit, iter_blob_files, query, truncate
from tests.fakes.images import Image, sha256_of
from tests.fakes.registry_storage import Storage, digests_of

NOBODY = 65534
LAYER = b"a layer of nobody's image" * 1000


@pytest.fixture
def image() -> Image:
    return image_of("library/busy", b"one" * 2000, b"two" * 3000)


@pytest.fixture
def storage(tmp_path: Path, image: Image) -> Storage:
    return storage_of(tmp_path / "registry", image)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def links(data: Path) -> set[tuple[object, ...]]:
    return set(
        query(
            data / "index.sqlite3",
            "SELECT name, digest, kind, link.state FROM link "
            "JOIN repository ON repository.id = repository_id",
        )
    )


def test_repositories_links_and_tags_come_along(storage: Storage, data: Path, image: Image) -> None:
    before = storage.snapshot()
    done = adopt(storage.directory, data)
    assert (done.code, done.stderr) == (0, "")
    assert storage.snapshot() == before
    assert {f"sha256:{path.name}" for path in iter_blob_files(data)} == digests_of(image)
    top = image.top.blob.digest
    expected = {
        ("library/busy", digest, "manifest" if digest == top else "blob", "held")
        for digest in digests_of(image)
    }
    assert links(data) == expected
    ((tag, digest, media_type, checked_at),) = query(
        data / "index.sqlite3", "SELECT tag, digest, media_type, checked_at FROM tag"
    )
    assert (tag, digest, checked_at) == ("1", top, 0.0)
    assert media_type == image.top.media_type


class Uncompared:
    """An entry of a directory that minds being compared with the others."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self._entry = entry

    def __getattr__(self, name: str) -> object:
        return getattr(self._entry, name)

    def __eq__(self, other: object) -> bool:
        raise AssertionError("a large directory would take minutes")

    __hash__ = object.__hash__


def test_a_large_directory_is_gone_through_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    scandir = os.scandir

    @contextmanager
    def scan(path: Path) -> Iterator[list[Uncompared]]:
        with scandir(path) as entries:
            yield [Uncompared(entry) for entry in entries]

    monkeypatch.setattr(os, "scandir", scan)
    found = survey(storage.directory)
    assert len(found.blobs) > 2
    assert found.findings == []


def test_nothing_that_came_in_is_public(storage: Storage, data: Path) -> None:
    adopt(storage.directory, data)
    assert query(data / "index.sqlite3", "SELECT DISTINCT is_public FROM blob") == [(0,)]


def test_content_of_long_ago_does_not_expire_at_once(
    storage: Storage, data: Path, image: Image
) -> None:
    for digest in digests_of(image):
        os.utime(storage.blob(digest), (1, 1))
    adopt(storage.directory, data)
    ((age_s,),) = query(data / "index.sqlite3", "SELECT unixepoch() - min(used_at) FROM blob")
    assert isinstance(age_s, float)
    assert age_s <= 24 * 3600 + 1


@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied"])
def test_a_damaged_blob_is_reported_and_not_taken(
    storage: Storage, data: Path, image: Image, damage: str
) -> None:
    layer = image.top.layers[0].blob
    path = storage.blob(layer.digest)
    if damage == "flipped":
        flip_bit(path, 100)
    else:
        truncate(path, 0 if damage == "emptied" else 50)
    done = adopt(storage.directory, data)
    assert done.code == 1
    assert done.findings() == [("damaged", str(path))]
    assert {f"sha256:{path.name}" for path in iter_blob_files(data)} == digests_of(image) - {
        layer.digest
    }
    assert list((data / "partial").iterdir()) == []


def test_a_tag_whose_manifest_is_damaged_is_not_taken(
    storage: Storage, data: Path, image: Image
) -> None:
    flip_bit(storage.blob(image.top.blob.digest))
    done = adopt(storage.directory, data)
    assert (done.code, done.report["tag_count"]) == (1, 0)


def test_what_the_registry_has_deleted_is_no_damage(storage: Storage, data: Path) -> None:
    gone = sha256_of(b"gone")
    storage.link(storage.repository("library/busy") / "_layers", gone)
    storage.add_tag("library/busy", "old", gone)
    storage.blob(gone).parent.mkdir(parents=True)
    done = adopt(storage.directory, data)
    assert (done.code, done.report["gone_count"]) == (0, 2)


def test_what_nobody_links_is_left(storage: Storage, data: Path) -> None:
    storage.add_blob(LAYER)
    done = adopt(storage.directory, data)
    assert (done.code, done.report["unlinked_count"]) == (0, 1)


def test_bad_links_are_reported(storage: Storage, data: Path) -> None:
    repository = storage.repository("library/busy")
    empty = storage.link(repository / "_layers", sha256_of(b"1"))
    empty.write_bytes(b"")
    other = storage.link(repository / "_layers", sha256_of(b"2"))
    other.write_text(sha256_of(b"3"))
    tag = storage.add_tag("library/busy", "bad", "sha256:12")
    done = adopt(storage.directory, data)
    assert done.code == 1
    assert set(done.findings()) == {("bad-link", str(path)) for path in (empty, other, tag)}


def test_foreign_files_and_symbolic_links_are_left_alone(
    storage: Storage, data: Path, tmp_path: Path
) -> None:
    elsewhere = Storage(tmp_path / "elsewhere")
    elsewhere.add_layer("library/secret", LAYER)
    foreign = [
        storage.root / "blobs" / "notes.txt",
        storage.root / "blobs" / "sha256" / "00" / "short",
        storage.root / "repositories" / "Upper",
        storage.root / "repositories" / "linked",
        storage.repository("library/busy") / "_manifests" / "tags" / "-bad",
    ]
    foreign[0].write_text("notes")
    for path in (foreign[1], foreign[2], foreign[4]):
        path.mkdir(parents=True)
    foreign[3].symlink_to(elsewhere.root / "repositories" / "library")
    done = adopt(storage.directory, data)
    assert done.code == 0
    assert set(done.findings()) == {("foreign", str(path)) for path in foreign}
    assert done.report["repository_count"] == 1


def test_a_blob_that_is_no_ordinary_file_is_not_read(storage: Storage, data: Path) -> None:
    link = storage.blob(storage.add_layer("library/busy", b"linked"))
    link.rename(link.with_name("elsewhere"))
    link.symlink_to("elsewhere")
    pipe = storage.blob(storage.add_layer("library/busy", b"a pipe"))
    pipe.unlink()
    os.mkfifo(pipe)
    done = adopt(storage.directory, data)
    assert done.code == 1
    assert set(done.findings()) == {("unreadable", str(link)), ("unreadable", str(pipe))}


def test_a_blob_of_two_repositories_is_one_blob(storage: Storage, data: Path, image: Image) -> None:
    base = image.top.layers[0].blob
    storage.add_layer("library/other", base.data)
    adopt(storage.directory, data)
    held = {name for name, digest, *_ in links(data) if digest == base.digest}
    assert held == {"library/busy", "library/other"}


def test_a_second_adoption_adds_what_is_new_and_reads_nothing_again(
    storage: Storage, data: Path, image: Image
) -> None:
    adopt(storage.directory, data)
    storage.add_layer("library/other", image.top.layers[0].blob.data)
    flip_bit(storage.blob(image.top.layers[0].blob.digest))  # nobody reads it any more
    data_before = {path: path.stat().st_ino for path in iter_blob_files(data)}
    done = adopt(storage.directory, data, "--mode", "copy")
    assert (done.code, done.report["link_count"], done.report["taken_count"]) == (0, 1, 0)
    assert {path: path.stat().st_ino for path in iter_blob_files(data)} == data_before


def test_a_layer_that_turns_out_to_be_a_manifest_is_served_as_one(
    storage: Storage, data: Path, image: Image
) -> None:
    top = image.top.blob
    other = storage.repository("library/other")
    storage.link(other / "_layers", top.digest)
    (revision := storage.repository("library/busy") / "_manifests").rename(other / "kept")
    adopt(storage.directory, data)
    (other / "kept").rename(revision)
    storage.link(other / "_manifests" / "revisions", top.digest)
    storage.add_tag("library/other", "1", top.digest)
    assert adopt(storage.directory, data).code == 0
    kinds = {(name, kind) for name, digest, kind, _ in links(data) if digest == top.digest}
    assert kinds == {("library/busy", "manifest"), ("library/other", "manifest")}
    found = query(data / "index.sqlite3", "SELECT media_type FROM tag")
    assert set(found) == {(image.top.media_type,)}


def test_what_upstream_said_of_a_tag_is_kept(storage: Storage, data: Path) -> None:
    adopt(storage.directory, data)
    query(data / "index.sqlite3", "UPDATE tag SET digest = 'sha256:newer', checked_at = 9")
    assert adopt(storage.directory, data).report["tag_count"] == 0
    assert query(data / "index.sqlite3", "SELECT digest FROM tag") == [("sha256:newer",)]


def test_a_lost_file_comes_in_again(storage: Storage, data: Path, image: Image) -> None:
    adopt(storage.directory, data)
    layer = image.top.layers[0].blob
    (path,) = [path for path in iter_blob_files(data) if path.name in layer.digest]
    path.unlink()
    assert adopt(storage.directory, data).report["taken_count"] == 1
    assert path.read_bytes() == layer.data


# The budget.


def test_what_has_no_room_is_left_and_it_is_what_was_used_longest_ago(
    storage: Storage, data: Path, tmp_path: Path
) -> None:
    old = storage.add_layer("library/busy", os.urandom(400_000))
    new = storage.add_layer("library/busy", os.urandom(400_000))
    os.utime(storage.blob(old), (1_000_000, 1_000_000))
    config = tmp_path / "config.yml"
    config.write_text("version: 0.1\neviction: {maxsize: 800KB, minfree: 0%}\n")
    done = adopt(storage.directory, data, "--config", str(config))
    assert (done.code, done.report["left_count"]) == (0, 1)
    assert "left 1 blobs (390.6 KiB), those used longest ago" in done.stderr
    names = {path.name for path in iter_blob_files(data)}
    assert new.hex in names
    assert old.hex not in names


def test_a_dry_run_changes_nothing(storage: Storage, data: Path, image: Image) -> None:
    done = adopt(storage.directory, data, "--dry-run")
    assert (done.code, done.report["taken_count"]) == (0, len(digests_of(image)))
    assert (done.report["tag_count"], done.report["link_count"]) == (1, len(digests_of(image)))
    assert not data.exists()
    adopt(storage.directory, data)
    again = adopt(storage.directory, data, "--dry-run").report
    assert (again["taken_count"], again["tag_count"], again["link_count"]) == (0, 0, 0)


# What is no registry's storage, and no data directory.


def test_a_directory_that_is_no_registrys_is_said_to_be_none(data: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    done = adopt(empty, data)
    assert done.code == 2
    assert f"error: {empty} is no registry's storage directory" in done.stderr
    assert not data.exists()


def test_a_part_of_the_storage_is_answered_by_the_whole(storage: Storage, data: Path) -> None:
    done = adopt(storage.root / "blobs", data)
    assert done.code == 2
    assert f"name all of it: {storage.directory}" in done.stderr


def test_what_is_not_there_is_said(data: Path, tmp_path: Path) -> None:
    done = adopt(tmp_path / "nowhere", data)
    assert (done.code, "nowhere: No such file or directory" in done.stderr) == (2, True)


def test_a_registry_without_content_is_adopted_in_no_time(data: Path, tmp_path: Path) -> None:
    storage = Storage(tmp_path / "fresh")
    storage.root.mkdir(parents=True)
    storage.add_schedule()
    done = adopt(storage.directory, data)
    assert (done.code, done.report["taken_count"]) == (0, 0)


def test_where_images_may_have_been_pushed_there_is_a_warning(storage: Storage, data: Path) -> None:
    (storage.directory / "scheduler-state.json").unlink()
    done = adopt(storage.directory, data)
    assert done.code == 0
    assert "as if it were docker.io's" in done.stderr


def test_somebody_elses_directory_does_not_become_the_mirrors(
    storage: Storage, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "letters.txt").write_text("dear")
    done = adopt(storage.directory, home)
    assert (done.code, "is not empty, and no data directory" in done.stderr) == (2, True)


def test_an_upstream_that_is_not_configured_is_refused(storage: Storage, data: Path) -> None:
    done = adopt(storage.directory, data, "--upstream", "ghcr.io")
    assert done.code == 2
    assert "no upstream ghcr.io is configured; there is docker.io" in done.stderr


def test_the_upstream_may_be_chosen_by_any_of_its_names(storage: Storage, data: Path) -> None:
    done = adopt(storage.directory, data, "--upstream", "registry-1.docker.io")
    assert done.report["upstream"] == "docker.io"


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root can act as another user")
def test_what_the_mirrors_user_may_not_read_is_said(
    storage: Storage, tmp_path: Path, image: Image
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    os.chown(data, NOBODY, NOBODY)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(0o755)
    layer = storage.blob(image.top.layers[0].blob.digest)
    layer.chmod(0o600)
    program = Path(sys.executable).with_name("moorage")
    argv = [str(program), "adopt", str(storage.directory), "--data", str(data), "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done.stderr
    (finding,) = json.loads(done.stdout)["findings"]
    assert (finding["fault"], finding["path"]) == ("unreadable", str(layer))
    assert finding["detail"] == "Permission denied"
    assert {path.stat().st_uid for path in data.rglob("*")} == {NOBODY}
    for closed in (storage.root, storage.directory):
        closed.chmod(0o700)
        refused = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert refused.returncode == 2
        assert f"cannot be read by user {NOBODY}: Permission denied" in refused.stderr


def test_a_blob_is_where_the_layout_says(storage: Storage, data: Path, image: Image) -> None:
    adopt(storage.directory, data)
    digest = storage.add_layer("library/busy", LAYER)
    adopt(storage.directory, data)
    assert blob_path(data, digest).read_bytes() == LAYER
