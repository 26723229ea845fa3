"""Memory does not climb under churn: hits, small fills and evictions, each of them thousands.

Growth is judged over the second half, when everything that is bounded has filled up, and as a slope
over requests, so that a step of the allocator's does not count as a trend.
"""

import http.client
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import linear_regression

import pytest

from tests.fakes.mirror import Mirror, site_of
from tests.fakes.upstream import ThreadedUpstream
from tests.fakes.upstream_content import make_bytes

pytestmark = pytest.mark.system

REPOSITORY = "library/churned"
ROUNDS = 24
FILLS, HITS = 20, 380  # a round's
BLOB_BYTES = 8_000
# Bytes a request. A leak of 1 KiB is twice as much. Without one there is a quarter, of the memos of
# heads and routes: they are full only after 16,000 different requests.
MAX_SLOPE = 500.0

LEAK = """
import server.access_log as log
leaked, note = [], log.AccessLog.exchange_over
def leak(self, *args):
    leaked.append(bytearray(1024))
    return note(self, *args)
log.AccessLog.exchange_over = leak
"""

# What SQLite had in a thread stays in that thread's part of the heap.
SNAPSHOTS = """
import os, sqlite3, sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from engine.index_connections import back_up, find_damage
from server.allocator import keep_large_pieces
from tests.system.test_memory import resident_bytes

def snap():
    back_up(path, path.with_suffix(".copy"))
    assert find_damage(path.with_suffix(".copy"), is_closed=True) is None
    path.with_suffix(".copy").unlink()

path = Path(sys.argv[1])
with closing(sqlite3.connect(path)) as connection, connection:
    connection.execute("CREATE TABLE t (x)")
    connection.executemany("INSERT INTO t VALUES (?)", [(bytes(1000),)] * 8000)
keep_large_pieces()
snap()
before = resident_bytes(os.getpid())
pools = [ThreadPoolExecutor(1) for _ in range(4)]
for pool in pools:
    pool.submit(snap).result()
print(resident_bytes(os.getpid()) - before)
"""


@contextmanager
def run_mirror(directory: Path, upstream_url: str, **environment: str) -> Iterator[Mirror]:
    """Run a mirror whose budget holds a small part of the churn."""
    site = site_of(directory, upstream_url)
    site.config["eviction"] = {"maxsize": 2_000_000, "minfree": 0, "interval": "1s"}
    with site.start(**environment) as mirror:
        yield mirror


def churn(mirror: Mirror, thread: ThreadedUpstream) -> list[float]:
    """Ask for much, once or again and again; return the resident bytes behind each round."""
    used_bytes = list[float]()
    with closing(http.client.HTTPConnection(mirror.address, timeout=60)) as connection:
        for number in range(ROUNDS):
            fresh = [add_blob(thread, number * FILLS + further) for further in range(FILLS)]
            for digest in (*fresh, *[fresh[-1]] * HITS):
                get(connection, digest)
            used_bytes.append(resident_bytes(mirror.child.pid))
    return used_bytes


def add_blob(thread: ThreadedUpstream, seed: int) -> str:
    return thread.upstream.content.add_blob(REPOSITORY, make_bytes(BLOB_BYTES, seed))


def get(connection: http.client.HTTPConnection, digest: str) -> None:
    connection.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}")
    response = connection.getresponse()
    assert response.status == 200
    assert len(response.read()) == BLOB_BYTES


def resident_bytes(pid: int) -> float:
    """What a process has resident (proc(5), statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def slope(used_bytes: list[float]) -> float:
    """By how many bytes a request memory climbs, over the second half."""
    half = used_bytes[len(used_bytes) // 2 :]
    requests = [float(number * (FILLS + HITS)) for number in range(len(half))]
    return linear_regression(requests, half).slope


def test_memory_does_not_climb_under_churn(tmp_path: Path) -> None:
    with (
        ThreadedUpstream() as thread,
        run_mirror(tmp_path, thread.upstream.url) as mirror,
    ):
        used_bytes = churn(mirror, thread)
        mirror.child.wait_for("evicted count=")
    assert slope(used_bytes) < MAX_SLOPE, used_bytes


def test_a_leak_of_a_kilobyte_a_request_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAK)
    with (
        ThreadedUpstream() as thread,
        run_mirror(tmp_path / "mirror", thread.upstream.url, PYTHONPATH=str(tmp_path)) as mirror,
    ):
        assert slope(churn(mirror, thread)) > 1.5 * MAX_SLOPE


def test_snapshots_by_one_thread_and_another_leave_little_in_each(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SNAPSHOTS, tmp_path / "index"], capture_output=True, check=True
    )
    assert float(done.stdout) < 4 * 1_500_000
