"""The blob directory: only whole, verified files become blobs."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from engine.blobdir import BlobDirectory, count_bytes, read_at, size_of, write_all
from engine.errors import DirectoryInUse, StorageError
from engine.hashing import digest_of
from engine.instance_lock import InstanceLock, refuse_second
from engine.layout import Layout

BODY = b"some content"
DIGEST = digest_of(BODY)


@pytest.fixture
def directory(tmp_path: Path) -> BlobDirectory:
    directory = BlobDirectory(Layout(tmp_path / "data"))
    directory.prepare()
    return directory


@pytest.fixture
def partial_fd(directory: BlobDirectory) -> Iterator[int]:
    fd = directory.open_partial(DIGEST)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("most_bytes", [1, 2, 3, 7, 100])
def test_parts_are_written_whole_however_much_the_disk_takes_at_a_time(
    partial_fd: int, monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    def take_some(fd: int, parts: Sequence[memoryview], offset: int) -> int:
        return os.pwrite(fd, b"".join(parts)[:most_bytes], offset)

    monkeypatch.setattr(os, "pwritev", take_some)
    write_all(partial_fd, [b"", b"abc", b"d", b"", b"efg", b""], 2)
    assert read_at(partial_fd, 100, 0) == b"\0\0abcdefg"


def test_more_parts_are_written_than_one_call_takes(partial_fd: int) -> None:
    parts = [bytes([number % 256]) for number in range(5_000)]
    write_all(partial_fd, parts, 0)
    assert read_at(partial_fd, 10_000, 0) == b"".join(parts)


def test_a_partial_becomes_a_read_only_blob_by_commit(
    directory: BlobDirectory, tmp_path: Path
) -> None:
    fd = directory.open_partial(DIGEST)
    write_all(fd, [BODY], 0)
    assert size_of(fd) == len(BODY)
    directory.commit(DIGEST)
    assert read_at(fd, 100, 0) == BODY  # who had it open goes on
    os.close(fd)
    path = tmp_path / "data/blobs/sha256" / DIGEST.hex[:2] / DIGEST.hex
    assert path.read_bytes() == BODY
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert list((tmp_path / "data/partial").iterdir()) == []


def test_content_in_memory_is_written_by_way_of_a_temporary_file(
    directory: BlobDirectory, tmp_path: Path
) -> None:
    directory.write_blob(DIGEST, BODY)
    directory.write_blob(DIGEST, BODY)
    fd = directory.open_blob(DIGEST)
    assert read_at(fd, 100, 0) == BODY
    os.close(fd)
    assert list((tmp_path / "data/partial").iterdir()) == []


def test_cleaning_keeps_partials_and_drops_unfinished_writes(
    directory: BlobDirectory, tmp_path: Path
) -> None:
    os.close(directory.open_partial(DIGEST))
    (tmp_path / "data/partial/sha256-x.tmp").touch()
    directory.clean()
    assert [p.name for p in (tmp_path / "data/partial").iterdir()] == [f"sha256-{DIGEST.hex}"]


def test_a_directory_of_partials_that_somebody_removed_is_made_anew(
    directory: BlobDirectory, tmp_path: Path
) -> None:
    (tmp_path / "data/partial").rmdir()
    directory.write_blob(DIGEST, BODY)
    (tmp_path / "data/partial").rmdir()
    os.close(directory.open_partial(DIGEST))
    assert len(list((tmp_path / "data/partial").iterdir())) == 1


def test_a_disk_error_says_what_was_tried(directory: BlobDirectory) -> None:
    with pytest.raises(StorageError, match=r"cannot commit .*No such file"):
        directory.commit(DIGEST)


def test_a_blob_whose_name_may_be_lost_is_none(
    directory: BlobDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        if path.name == DIGEST.hex[:2]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("engine.blobdir.sync_directory", fail)
    with pytest.raises(StorageError, match=r"cannot commit .*Input/output error"):
        directory.write_blob(DIGEST, BODY)
    assert directory.find_file(DIGEST) is None
    assert list((tmp_path / "data/partial").iterdir()) == []


def test_a_data_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot prepare"):
        BlobDirectory(Layout(tmp_path / "file")).prepare()


def test_files_are_counted_by_blocks_whoever_knows_of_them(directory: BlobDirectory) -> None:
    for body in (b"", b"x", bytes(513)):
        directory.write_blob(digest_of(body), body)
    paths = directory.list_shard_paths()
    assert len(paths) == 3
    assert sum(count_bytes(path, 512) for path in paths) == 3 * 512


def test_a_second_server_is_told_who_has_the_directory(tmp_path: Path) -> None:
    first = InstanceLock(tmp_path / "instance.lock")
    for look in (InstanceLock, refuse_second):
        with pytest.raises(DirectoryInUse) as caught:
            look(tmp_path / "instance.lock")
        assert caught.value.pid == os.getpid()
    first.release()
    refuse_second(tmp_path / "instance.lock")
    InstanceLock(tmp_path / "instance.lock").release()


def test_a_directory_that_is_not_there_is_nobodys(tmp_path: Path) -> None:
    refuse_second(tmp_path / "data" / "instance.lock")
    assert not (tmp_path / "data").exists()
