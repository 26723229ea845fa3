"""Spans of files to sockets: offsets, holds, and files that are not what they were said to be."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.hot import OpenFile
from server import sendfile
from server.sendfile import FileUnreadable, Span, push
from tests.fakes.transport import pattern


@pytest.fixture
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def file(tmp_path: Path) -> OpenFile:
    path = tmp_path / "file"
    path.write_bytes(pattern(5_000_000))
    return OpenFile(os.open(path, os.O_RDONLY))


Sockets = tuple[socket.socket, socket.socket]


def test_a_span_is_sent_from_its_offset_to_its_end(sockets: Sockets, file: OpenFile) -> None:
    span = Span(file.fd, 1000, 1100, file)
    assert push(sockets[0].fileno(), span) == 100
    assert span.offset == span.end == 1100
    assert sockets[1].recv(1000) == pattern(1100)[1000:]
    span.release()


def test_a_full_socket_leaves_the_rest_for_later(sockets: Sockets, file: OpenFile) -> None:
    span = Span(file.fd, 0, 5_000_000, file)
    received = b""
    first = push(sockets[0].fileno(), span)
    assert 0 < first < 5_000_000
    assert push(sockets[0].fileno(), span) == 0
    while len(received) < 5_000_000:
        received += sockets[1].recv(100_000)
        push(sockets[0].fileno(), span)
    assert received == pattern(5_000_000)
    span.release()


def test_one_turn_sends_so_much_and_no_more(
    sockets: Sockets, file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sendfile, "TURN_BYTES", 1000)
    span = Span(file.fd, 0, 1500, file)
    assert push(sockets[0].fileno(), span) == 1000
    assert push(sockets[0].fileno(), span) == 500
    span.release()


def test_a_file_that_is_too_short_is_an_error(sockets: Sockets, file: OpenFile) -> None:
    span = Span(file.fd, 4_999_990, 5_000_010, file)
    assert push(sockets[0].fileno(), span) == 10
    with pytest.raises(FileUnreadable, match="ends at 5000000"):
        push(sockets[0].fileno(), span)
    assert span.offset == 5_000_000
    span.release()


def test_a_disk_that_cannot_read_is_an_error(
    sockets: Sockets, file: OpenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: int) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "sendfile", fail)
    span = Span(file.fd, 0, 10, file)
    with pytest.raises(FileUnreadable, match="at 0"):
        push(sockets[0].fileno(), span)
    span.release()


def test_a_gone_client_is_the_sockets_own_error(sockets: Sockets, file: OpenFile) -> None:
    sockets[1].close()
    span = Span(file.fd, 0, 10, file)
    with pytest.raises(BrokenPipeError):
        push(sockets[0].fileno(), span)
    span.release()


def test_a_hold_is_released_once(file: OpenFile) -> None:
    span = Span(file.fd, 0, 10, file.acquire())
    span.release()
    span.release()
    os.fstat(file.fd)  # still open: the fixture's own hold is left
    file.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(file.fd)


def test_a_span_without_a_hold_leaves_the_descriptor_open(file: OpenFile) -> None:
    Span(file.fd, 0, 10).release()
    os.fstat(file.fd)
    file.release()


def test_a_file_that_proved_wrong_is_sent_no_further(sockets: Sockets, file: OpenFile) -> None:
    span = Span(file.fd, 0, 5_000_000, file)
    push(sockets[0].fileno(), span)
    file.is_revoked = True
    sockets[1].recv(100_000)
    with pytest.raises(FileUnreadable, match="quarantined"):
        push(sockets[0].fileno(), span)
    span.release()
