"""Readers who take a large body by a few kilobytes a second, and keep their connections for it.

Run as `python -m tools.bench_slow` with a `Crowd` as JSON on standard input. Says `reading` once
all have their first bytes; ends when its standard input is closed or its time is over, with the
number of readers that have lost their connection.
"""

import resource
import socket
import sys
import time

import msgspec

_PIECE_BYTES = 4 * 1024
_TURN_S = 0.5
_BUFFER_BYTES = 32 * 1024
_TIMEOUT_S = 60.0


class Crowd(msgspec.Struct, frozen=True):
    """Who reads what, and for how long."""

    address: str
    path: str
    count: int
    seconds: float


def connect(crowd: Crowd) -> socket.socket:
    """Ask for the body and wait for its first bytes. Raises OSError."""
    host, _, port = crowd.address.rpartition(":")
    sock = socket.socket()
    # Set before connecting, or the kernel has offered a larger window already.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    sock.settimeout(_TIMEOUT_S)
    sock.connect((host, int(port)))
    sock.sendall(f"GET {crowd.path} HTTP/1.1\r\nHost: {crowd.address}\r\n\r\n".encode())
    if not sock.recv(_PIECE_BYTES).startswith(b"HTTP/1.1 200 "):
        raise OSError("not 200")
    sock.setblocking(False)
    return sock


def read_slowly(socks: list[socket.socket], seconds: float) -> int:
    """Read a little from each, again and again; return how many connections were lost."""
    deadline = time.monotonic() + seconds
    alive = list(socks)
    while time.monotonic() < deadline:
        alive = [sock for sock in alive if _is_alive(sock)]
        time.sleep(_TURN_S)
    return len(socks) - len(alive)


def _is_alive(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(_PIECE_BYTES))
    except BlockingIOError:
        return True
    except OSError:
        return False


def run(crowd: Crowd) -> int:
    """Run a crowd; return how many readers were lost."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    socks = [connect(crowd) for _ in range(crowd.count)]
    try:
        print("reading now", flush=True)
        return read_slowly(socks, crowd.seconds)
    finally:
        for sock in socks:
            sock.close()


if __name__ == "__main__":
    lost = run(msgspec.json.decode(sys.stdin.buffer.read(), type=Crowd))
    print(f"lost {lost}", flush=True)
