"""A door to a mirror that leads somewhere else says so."""

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from server.control_messages import Warm
from tools.control_client import ActFailed
from tools.door import UrlDoor


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Serve the same answer to every request; give the URL."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline().strip():
                continue
            self.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("body", [b"<html>", b'{"server": {"pi', b"{}", b""])
def test_what_is_no_mirrors_answer_is_told(body: bytes) -> None:
    with answering(body) as url:
        door = UrlDoor(url, None)
        with pytest.raises(ActFailed, match=r"127.0.0.1:\d+: no answer of a mirror"):
            door.overview()
        with pytest.raises(ActFailed, match="no answer of a mirror"):
            door.drain()


def test_a_warm_that_is_cut_within_a_line_is_told() -> None:
    with (
        answering(b'{"ref": "busybox:1", "sta') as url,
        pytest.raises(ActFailed, match="no answer of a mirror"),
    ):
        list(UrlDoor(url, None).warm(Warm("busybox:1", [])))


@pytest.mark.parametrize(
    "url", ["mirror:5001", "http://", "http://u@x", "http://x:99999", "http://x:y", "http://[::1"]
)
def test_what_is_no_url_is_wrong_usage(url: str) -> None:
    with pytest.raises(click.UsageError, match="is no URL such as"):
        UrlDoor(url, None)
