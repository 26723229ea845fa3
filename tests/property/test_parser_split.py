"""However a client's bytes are cut into pieces, it gets the same responses."""

import asyncio
import re
import tempfile
from itertools import pairwise
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.limits import Limits
from server.protocol import Connection
from tests.fakes.transport import MemoryTransport, Over, open_site

# Small, so that what is too large is met often.
LIMITS = Limits(head_bytes=300, head_lines=8, target_bytes=100)

GOOD = [
    b"GET /hit/5 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /task/30 HTTP/1.1\r\nHost: x\r\nX-Test: 1\r\n\r\n",
    b"GET /file/70000 HTTP/1.1\r\nHost: x\r\nAccept: a\r\nAccept: b\r\n\r\n",
    b"HEAD /hit/7 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /chunks/12000 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /hit/1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /bug HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\nGET /hit/2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /hit/3 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
]
LAST = [
    b"GET /hit/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    b"POST /hit/1 HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\nGET /hit/2 HTTP/1.1\r\n",
    b"GET /hit/1 HTTP/1.1\nHost: x\n\n",
    b"GET /hit/1 HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    b"GET /hit/1 HTTP/1.1\r\nA: b\rc\r\n\r\n",
    b"GET /hit/1 HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 120 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /" + b"a" * 400,
    b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 400 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 400 + b"\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 10 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00",
    b"\x00",
    b"GET /hit/1 HT",
]

conversations = st.builds(
    lambda good, last: b"".join(good) + last,
    st.lists(st.sampled_from(GOOD), max_size=6),
    st.sampled_from([b"", *LAST]),
)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A conversation with a byte or two that are not what they were."""
    data = bytearray(draw(conversations.filter(len)))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at] = draw(st.sampled_from(b"\r\n\0\t :\x16aZ/1\xff"))
    return bytes(data)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({at % (len(data) + 1) for at in cuts}), len(data)]
    return [data[a:b] for a, b in pairwise(edges) if a < b]


async def converse(pieces: list[bytes]) -> tuple[bytes, list[Over]]:
    """Play the pieces to a connection and its end; give its output and its exchanges."""
    with tempfile.TemporaryDirectory() as directory:
        async with open_site(Path(directory), LIMITS) as site:
            connection = Connection(site.endpoint)
            transport = MemoryTransport(connection)
            output = b""
            for piece in pieces:
                if transport.is_closing():
                    break
                connection.data_received(piece)
                await asyncio.sleep(0)
                output += transport.read_output()
            if not transport.is_closing():
                connection.eof_received()
            while site.endpoint.connections:
                await asyncio.sleep(0)
                output += transport.read_output()
            output += transport.read_output()
            transport.finish()
    return re.sub(rb"(Date|X-Request-Id): [^\r]+\r\n", b"", output), site.records.all


@settings(max_examples=150, deadline=None)
@given(mutations(), st.lists(st.integers(0, 4000), max_size=8))
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    assert asyncio.run(converse(cut(data, cuts))) == asyncio.run(converse([data]))


@settings(max_examples=40, deadline=None)
@given(mutations())
@example(b"\nGET /hit/5 HTTP/1.1\r\nHost: x\r\n\r\n")
@example(b"\r\n\x16\nGET /hit/2 HTTP/1.1\r\nHost: x\r\n\r\n")
def test_byte_by_byte_changes_nothing(data: bytes) -> None:
    assert asyncio.run(converse([bytes([b]) for b in data])) == asyncio.run(converse([data]))


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=1, max_size=600))
def test_garbage_gets_no_answer_but_a_refusal(data: bytes) -> None:
    output, over = asyncio.run(converse([data]))
    assert output == b"" or output.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
    assert all(each.status >= 400 for each in over)
