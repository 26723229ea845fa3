"""What waits in sockets for clients that do not read, by what the kernel has for TCP.

The mirror runs where `net.ipv4.tcp_mem` reads as the test has it; the machine's own stays.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.images import sha256_of
from tests.fakes.mirror import Mirror, site_of
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.raw import ask

pytestmark = pytest.mark.system

REPOSITORY = "library/slow"
LAYER = make_bytes(16 * 1024 * 1024, 1)
PLENTY, NOTHING = "1000000000 1000000000 1000000000", "0 0 0"
_NAMESPACE = ["unshare", "--mount", "--propagation", "private"]
_ENTER = 'mount --bind "$1" /proc/sys/net/ipv4/tcp_mem && shift && exec "$@"'


@contextmanager
def run_mirror(directory: Path, upstream_url: str, tcp_mem: str) -> Iterator[Mirror]:
    """Run a mirror that reads `tcp_mem`, in a mount namespace of its own."""
    site = site_of(directory, upstream_url)
    numbers = directory / "tcp_mem"
    numbers.write_text(tcp_mem)
    with site.spawn(*_NAMESPACE, "sh", "-c", _ENTER, "sh", str(numbers)) as child:
        yield Mirror(child)


@contextmanager
def stop_reading(mirror: Mirror, path: str) -> Iterator[socket.socket]:
    """Ask for `path` and read no more than a response's first byte."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.connect(("127.0.0.1", mirror.port))
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(1) == b"H"
        yield client


def count_queued(mirror: Mirror, client: socket.socket) -> int:
    """Count the bytes that the mirror's socket keeps for `client`, as /proc/net/tcp has them."""
    assert ask(mirror.address, "/v2/").status == 200  # so the loop has done what it could
    ends = [f"0100007F:{port:04X}" for port in (mirror.port, client.getsockname()[1])]
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[4].partition(":")[0], 16)
    raise AssertionError("no such connection")


def read_body(client: socket.socket) -> bytes:
    """Read a response to its end, from its second byte on."""
    response = b"".join(iter(lambda: client.recv(1 << 20), b""))
    return response.partition(b"\r\n\r\n")[2]


def test_little_waits_in_a_socket_where_the_kernel_has_little_for_it(tmp_path: Path) -> None:
    probe = [*_NAMESPACE, "sh", "-c", _ENTER, "sh", __file__, "true"]
    if os.geteuid() != 0 or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("not run: little memory for TCP (needs root and a machine's own network)")
    queued: dict[str, list[int]] = {PLENTY: [], NOTHING: []}
    with ThreadedUpstream() as thread:
        path = f"/v2/{REPOSITORY}/blobs/{thread.upstream.content.add_blob(REPOSITORY, LAYER)}"
        for tcp_mem, counts in queued.items():
            directory = tmp_path / tcp_mem[0]
            with run_mirror(directory, thread.upstream.url, tcp_mem) as mirror:
                with stop_reading(mirror, path) as cold:
                    assert ask(mirror.address, path).body == LAYER  # the fill is over
                    counts.append(count_queued(mirror, cold))
                    with stop_reading(mirror, path) as warm:
                        counts.append(count_queued(mirror, warm))
                        assert [sha256_of(read_body(client)) for client in (cold, warm)] == [
                            sha256_of(LAYER)
                        ] * 2
                was_said = any("much waits in sockets" in line for line in mirror.child.lines())
                assert was_said == (tcp_mem == NOTHING)
    for little, much in zip(queued[NOTHING], queued[PLENTY], strict=True):
        assert 0 < little * 4 < much
