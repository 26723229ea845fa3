"""The hot table: bounded, and never ahead of what is stored."""

import os
from pathlib import Path

import pytest

from engine import hot
from engine.hashing import digest_of
from engine.hot import Content, Hot, Kind
from engine.names import Digest, Location, Repository

HERE = Location("docker.io", Repository("a"))


@pytest.fixture
def table(tmp_path: Path) -> Hot:
    return Hot(lambda digest: os.open(tmp_path / digest.hex, os.O_RDONLY))


def _content(tmp_path: Path, body: bytes) -> Content:
    digest = digest_of(body)
    (tmp_path / digest.hex).write_bytes(body)
    return Content(digest, len(body), "", 0.0)


def _open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_small_bodies_are_read_once(tmp_path: Path, table: Hot) -> None:
    content = _content(tmp_path, b"small")
    table.add(Kind.BLOB, HERE, content)
    assert table.load_body(content) == b"small"
    (tmp_path / content.digest.hex).unlink()
    assert table.load_body(content) == b"small"
    table.close()


def test_large_bodies_are_not_read(tmp_path: Path, table: Hot) -> None:
    assert table.load_body(_content(tmp_path, bytes(hot.SMALL_BODY_BYTES + 1))) is None


def test_a_body_of_the_wrong_size_is_not_given(tmp_path: Path, table: Hot) -> None:
    content = _content(tmp_path, b"small")
    (tmp_path / content.digest.hex).write_bytes(b"smaller")
    with pytest.raises(ValueError, match="6 bytes, not 5"):
        table.load_body(content)
    table.close()


def test_a_blob_and_a_manifest_of_one_digest_are_two_entries(tmp_path: Path, table: Hot) -> None:
    content = _content(tmp_path, b"x")
    table.add(Kind.BLOB, HERE, content)
    assert table.find(Kind.BLOB, HERE, content.digest) is content
    assert table.find(Kind.MANIFEST, HERE, content.digest) is None
    assert table.find(Kind.BLOB, Location("ghcr.io", HERE.repository), content.digest) is None


def test_what_is_forgotten_is_gone_everywhere_but_for_those_who_send_it(
    tmp_path: Path, table: Hot
) -> None:
    content = _content(tmp_path, b"x")
    table.add(Kind.BLOB, HERE, content)
    table.add(Kind.MANIFEST, HERE, content)
    table.load_body(content)
    before = _open_fds()
    file = table.open_file(content.digest)
    table.forget(content.digest)
    assert content.body is None
    assert table.find(Kind.BLOB, HERE, content.digest) is None
    assert table.find(Kind.MANIFEST, HERE, content.digest) is None
    assert os.pread(file.fd, 1, 0) == b"x"
    file.release()
    assert _open_fds() == before - 1


def test_every_bound_holds(tmp_path: Path, table: Hot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "MAX_ENTRIES", 5)
    monkeypatch.setattr(hot, "MAX_BODY_BYTES", 30)
    monkeypatch.setattr(hot, "MAX_FILES", 2)
    before = _open_fds()
    contents = [_content(tmp_path, b"0123456789%d" % i) for i in range(10)]
    for content in contents:
        table.add(Kind.BLOB, HERE, content)
        table.load_body(content)
    held = [c for c in contents if table.find(Kind.BLOB, HERE, c.digest)]
    assert held == contents[5:]
    assert sum(c.body is not None for c in contents) <= 2
    assert _open_fds() - before == 2
    table.close()
    assert _open_fds() == before


def test_content_knows_whether_it_is_in_the_table(
    tmp_path: Path, table: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def added(body: bytes) -> Content:
        content = _content(tmp_path, body)
        all_content.append(content)
        table.add(Kind.BLOB, HERE, content)
        return content

    def hot_ones() -> list[int]:
        return [at for at, content in enumerate(all_content) if content.is_hot]

    all_content = [_content(tmp_path, b"0")]
    assert hot_ones() == []
    added(b"1")
    assert hot_ones() == [1]
    second = added(b"1")
    assert hot_ones() == [2]
    table.add(Kind.BLOB, HERE, second)
    assert hot_ones() == [2]
    table.forget(second.digest)
    assert hot_ones() == []
    added(b"3")
    table.forget_repositories(lambda location: location == HERE)
    assert hot_ones() == []
    monkeypatch.setattr(hot, "MAX_ENTRIES", 1)
    added(b"4")
    added(b"5")
    assert hot_ones() == [5]
    table.close()
    assert hot_ones() == []


def test_the_least_recently_used_entry_goes_first(
    tmp_path: Path, table: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "MAX_ENTRIES", 2)
    one, two, three = (_content(tmp_path, body) for body in (b"1", b"2", b"3"))
    table.add(Kind.BLOB, HERE, one)
    table.add(Kind.BLOB, HERE, two)
    table.find(Kind.BLOB, HERE, one.digest)
    table.add(Kind.BLOB, HERE, three)
    assert table.find(Kind.BLOB, HERE, two.digest) is None
    assert table.find(Kind.BLOB, HERE, one.digest) is one


def test_a_missing_file_is_an_error_and_not_an_empty_body(table: Hot) -> None:
    with pytest.raises(FileNotFoundError):
        table.open_file(Digest("sha256:" + "0" * 64))


def test_a_repository_may_be_forgotten_and_others_not(tmp_path: Path, table: Hot) -> None:
    content = _content(tmp_path, b"shared")
    elsewhere = Location("ghcr.io", Repository("a"))
    for location in (HERE, elsewhere):
        table.add(Kind.BLOB, location, content)
    table.forget_repositories(lambda location: location == HERE)
    assert table.find(Kind.BLOB, HERE, content.digest) is None
    assert table.find(Kind.BLOB, elsewhere, content.digest) is content
    table.close()


def test_revoking_stops_those_who_send_that_file_and_no_other(tmp_path: Path, table: Hot) -> None:
    content = _content(tmp_path, b"damaged")
    path = tmp_path / content.digest.hex
    held = table.open_file(content.digest)
    path.rename(tmp_path / "old")
    path.write_bytes(b"damaged")
    with path.open("rb") as other:
        table.revoke(content.digest, other.fileno())
    assert not held.is_revoked
    held.release()
    anew = table.open_file(content.digest)
    table.add(Kind.BLOB, HERE, content)
    table.revoke(content.digest)
    assert anew.is_revoked
    assert table.find(Kind.BLOB, HERE, content.digest) is None
    anew.release()
    table.close()


def test_a_file_is_known_for_as_long_as_it_is_sent(
    tmp_path: Path, table: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "MAX_FILES", 1)
    before = _open_fds()
    one, two = (_content(tmp_path, body).digest for body in (b"1", b"2"))
    held = table.open_file(one)
    table.open_file(two).release()  # `one` falls out
    assert table.is_sent(one)
    assert not table.is_sent(two)
    again = table.open_file(one)  # and comes back
    assert again is held
    table.open_file(two).release()
    held.release()
    assert table.is_sent(one)
    again.release()
    assert not table.is_sent(one)
    assert _open_fds() - before == 1
    table.close()
    assert _open_fds() == before


def test_revoking_stops_those_whose_file_fell_out_of_the_table(
    tmp_path: Path, table: Hot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hot, "MAX_FILES", 1)
    one, two = (_content(tmp_path, body).digest for body in (b"1", b"2"))
    held = table.open_file(one)
    table.open_file(two).release()
    with (tmp_path / two.hex).open("rb") as other:
        table.revoke(one, other.fileno())
    assert not held.is_revoked
    held.release()
    held = table.open_file(one)
    table.open_file(two).release()
    table.revoke(one)
    assert held.is_revoked
    assert not table.is_sent(one)
    anew = table.open_file(one)
    assert anew is not held
    assert not anew.is_revoked
    anew.release()
    held.release()
    table.close()
