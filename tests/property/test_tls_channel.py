"""TLS over any cutting of the stream: the same plaintext comes out, and nothing is held back."""

import ssl
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from server.tls_channel import Channel
from server.tls_context import load_identity
from tests.fakes.authority import Authority

sizes = st.lists(st.integers(1, 3000), min_size=1, max_size=20)


@cache
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A client's and a server's."""
    with tempfile.TemporaryDirectory() as directory:
        authority = Authority(Path(directory))
        return authority.client(), load_identity(authority.issue("mirror").settings()).context


def cut(data: bytes, lengths: Iterator[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        end = start + next(lengths)
        yield data[start:end]
        start = end


@given(sizes, st.lists(st.binary(min_size=1, max_size=20_000), max_size=5))
def test_any_cutting_gives_the_same_plaintext(
    lengths: Sequence[int], messages: list[bytes]
) -> None:
    client_context, server_context = contexts()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    server = Channel(server_context)
    parts = cycle(lengths)
    received = b""
    is_shaken = False
    while not is_shaken or not server.is_established:
        try:
            client.do_handshake()
            is_shaken = True
        except ssl.SSLWantReadError:
            is_shaken = False
        for part in cut(outgoing.read(), parts):
            received += server.receive(part)
        incoming.write(server.take_output())
    for message in messages:
        client.write(message)
    for part in cut(outgoing.read(), parts):
        received += server.receive(part)
    assert received == b"".join(messages)
    for message in messages:
        incoming.write(server.encrypt(message))
    incoming.write(server.end())
    echoed = b""
    while piece := client.read(65536):
        echoed += piece
    assert echoed == received
