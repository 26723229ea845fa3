"""What goes to make room for the index on a full disk, and what stays."""

import errno
import os
from pathlib import Path

import pytest

from engine.blobdir import BlobDirectory
from engine.foothold import NEEDED_BYTES, gain_foothold
from engine.layout import Layout
from tests.fakes.upstream_content import digest_of

SMALL, LARGE = b"small", bytes([1]) * NEEDED_BYTES


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    BlobDirectory(layout).prepare()
    return layout


def store(layout: Layout, *bodies: bytes) -> list[Path]:
    """Store blobs."""
    for body in bodies:
        BlobDirectory(layout).write_blob(digest_of(body), body)
    return [layout.blob_path(digest_of(body)) for body in bodies]


def have_room_after(monkeypatch: pytest.MonkeyPatch, path: Path | None, code: int) -> None:
    """Refuse to allocate while `path` is there; for ever where it is None."""

    def allocate(fd: int, offset: int, count_bytes: int) -> None:
        if path is None or path.exists():
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", allocate)


def test_where_there_is_room_nothing_goes(layout: Layout) -> None:
    paths = [*store(layout, SMALL, LARGE), layout.partial_directory / "sha256-1"]
    paths[-1].write_bytes(LARGE)
    gain_foothold(layout)
    assert all(path.exists() for path in paths)
    assert list(layout.partial_directory.iterdir()) == [paths[-1]], "the attempt leaves nothing"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT], ids=["ENOSPC", "EDQUOT"])
def test_a_partial_goes_before_any_blob(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    blobs = store(layout, SMALL, LARGE)
    partial = layout.partial_directory / "sha256-1"
    partial.write_bytes(LARGE)
    have_room_after(monkeypatch, partial, code)
    gain_foothold(layout)
    assert not partial.exists()
    assert all(path.exists() for path in blobs)


def test_one_large_blob_goes_before_many_small_ones(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    small, large, other = store(layout, SMALL, LARGE, b"other")
    have_room_after(monkeypatch, large, errno.ENOSPC)
    gain_foothold(layout)
    assert [path.exists() for path in (small, large, other)] == [True, False, True]
    assert "removed_count=1" in caplog.text


def test_a_disk_that_is_filled_by_others_alone_is_left_to_them(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    have_room_after(monkeypatch, None, errno.ENOSPC)
    gain_foothold(layout)
    assert "removed_count=0" in caplog.text


def test_another_failure_is_no_reason_to_remove_anything(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    (blob,) = store(layout, LARGE)
    have_room_after(monkeypatch, None, errno.EIO)
    gain_foothold(layout)
    assert blob.exists()
