"""An exchange without a connection: it keeps what the API answers, and checks that it may.

It refuses what the transport would: two answers, a body of another length than was announced, a
body for HEAD.
"""

import asyncio
import os
from dataclasses import dataclass, field

from engine.hot import OpenFile
from server.exchange import ClientGone
from server.series import Place


@dataclass
class Answer:
    """A response as a client would have received it. `is_whole`: it was finished, not cut."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    is_chunked: bool = False


@dataclass(eq=False)
class FakeExchange:
    """A request; `gone_after_bytes` of the body the client goes away."""

    target: bytes
    method: bytes = b"GET"
    headers: dict[str, str] = field(default_factory=dict)
    gone_after_bytes: int | None = None

    http_version: str = "1.1"
    remote: str = "127.0.0.1"
    status: int = 0
    cache_status: str = ""
    upstream: str = ""
    digest: str = ""
    cause: str = ""
    request_id: str = ""
    first_byte_s: float | None = None
    place: Place | None = None

    head: bytes = b""
    body: bytes = b""
    length: int | None = None
    is_streamed: bool = False
    is_finished: bool = False
    is_aborted: bool = False
    progress: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: bytes) -> bytes | None:
        value = self.headers.get(name.decode())
        return None if value is None else value.encode("latin-1")

    def send(self, head: bytes, body: bytes = b"") -> None:
        self._take_head(head)
        self.body = body
        if self.method == b"HEAD":
            assert not body
        elif "content-length" in self.fields:
            assert int(self.fields["content-length"]) == len(body)
        self.is_finished = True

    def send_file(self, head: bytes, file: OpenFile, start: int, end: int) -> None:
        try:
            self.send(head, os.pread(file.fd, end - start, start))
        finally:
            file.release()

    async def start(self, head: bytes, length: int | None) -> None:
        assert self.method != b"HEAD"
        self._take_head(head)
        assert "content-length" not in self.fields
        self.length = length
        self.is_streamed = True
        self.progress.set()

    async def write(self, data: bytes) -> None:
        assert self.is_streamed
        assert not self.is_finished
        self.body += data
        if self.gone_after_bytes is not None and len(self.body) > self.gone_after_bytes:
            raise ClientGone
        self.progress.set()
        await asyncio.sleep(0)

    async def write_file(self, fd: int, start: int, end: int) -> None:
        data = os.pread(fd, end - start, start)
        assert len(data) == end - start
        await self.write(data)

    def finish(self) -> None:
        assert self.is_streamed
        assert self.length is None or self.length == len(self.body)
        self.is_finished = True

    def abort(self) -> None:
        assert not self.is_finished
        self.is_aborted = True

    async def received(self, count_bytes: int) -> None:
        """Wait until so many bytes of the body are here; 0 waits for the head."""
        while not self.head or len(self.body) < count_bytes:
            self.progress.clear()
            await self.progress.wait()

    @property
    def fields(self) -> dict[str, str]:
        """The response's header fields by their lower-case names."""
        lines = self.head.decode("ascii").split("\r\n")
        assert lines.pop() == "", "a head's lines end in CRLF"
        pairs = [line.split(": ", 1) for line in lines[1:]]
        assert len({name.lower() for name, _ in pairs}) == len(pairs), "a field is there twice"
        return {name.lower(): value for name, value in pairs}

    @property
    def answer(self) -> Answer:
        """What the client received. Fails where nothing was answered."""
        assert self.head, "no answer"
        status = int(self.head.split(b" ")[1])
        assert status == self.status, "the access log would lie"
        is_chunked = self.is_streamed and self.length is None
        return Answer(status, self.fields, self.body, self.is_finished, is_chunked)

    def _take_head(self, head: bytes) -> None:
        assert not self.head, "answered twice"
        assert head.startswith(b"HTTP/1.1 ")
        assert not head.endswith(b"\r\n\r\n")
        self.head = head
