"""What waits in sockets for clients that do not read, by what the kernel has for TCP.

The mirror runs where `net.ipv4.tcp_mem` reads as the test has it; the machine's own stays.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.child import OWN_MOUNTS
from tests.fakes.images import sha256_of
from tests.fakes.mirror import Mirror, site_of
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import make_bytes
from tests.system.raw import ask
from tests.system.wire import Response, Wire, connect, request

pytestmark = pytest.mark.system

REPOSITORY = "library/slow"
LAYER = make_bytes(16 * 1024 * 1024, 1)
PLENTY, NOTHING = "1000000000 1000000000 1000000000", "0 0 0"
_ENTER = 'mount --bind "$1" /proc/sys/net/ipv4/tcp_mem && shift && exec "$@"'


@contextmanager
def run_mirror(directory: Path, upstream_url: str, tcp_mem: str) -> Iterator[Mirror]:
    """Run a mirror that reads `tcp_mem`, in a mount namespace of its own."""
    site = site_of(directory, upstream_url)
    numbers = directory / "tcp_mem"
    numbers.write_text(tcp_mem)
    with site.spawn(*OWN_MOUNTS, "sh", "-c", _ENTER, "sh", str(numbers)) as child:
        yield Mirror(child)


def ask_and_stop(client: Wire, path: str) -> Response:
    """Ask for `path` and receive no more than the head, and what came with it."""
    client.send(request(path))
    return client.receive_head()


def count_queued(mirror: Mirror, client: Wire) -> int:
    """Count the bytes that the mirror's socket keeps for `client`, as /proc/net/tcp has them."""
    assert ask(mirror.address, "/v2/").status == 200  # so the loop has done what it could
    ends = [f"0100007F:{port:04X}" for port in (mirror.port, client.port)]
    for line in Path("/proc/net/tcp").read_text().splitlines():
        fields = line.split()
        if fields[1:3] == ends:
            return int(fields[4].partition(":")[0], 16)
    raise AssertionError("no such connection")


def test_little_waits_in_a_socket_where_the_kernel_has_little_for_it(tmp_path: Path) -> None:
    probe = [*OWN_MOUNTS, "sh", "-c", _ENTER, "sh", __file__, "true"]
    if os.geteuid() != 0 or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("not run: little memory for TCP (needs root and a machine's own network)")
    queued: dict[str, list[int]] = {PLENTY: [], NOTHING: []}
    with ThreadedUpstream() as thread:
        path = f"/v2/{REPOSITORY}/blobs/{thread.upstream.content.add_blob(REPOSITORY, LAYER)}"
        for tcp_mem, counts in queued.items():
            directory = tmp_path / tcp_mem[0]
            with run_mirror(directory, thread.upstream.url, tcp_mem) as mirror:
                with connect(mirror.address) as cold, connect(mirror.address) as warm:
                    cold_head = ask_and_stop(cold, path)
                    assert ask(mirror.address, path).body == LAYER  # the fill is over
                    counts.append(count_queued(mirror, cold))
                    warm_head = ask_and_stop(warm, path)
                    counts.append(count_queued(mirror, warm))
                    bodies = [cold.receive_body(cold_head), warm.receive_body(warm_head)]
                    assert [sha256_of(body) for body in bodies] == [sha256_of(LAYER)] * 2
                was_said = any("much waits in sockets" in line for line in mirror.child.lines())
                assert was_said == (tcp_mem == NOTHING)
    for little, much in zip(queued[NOTHING], queued[PLENTY], strict=True):
        assert 0 < little * 4 < much
