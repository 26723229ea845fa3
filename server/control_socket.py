"""Where `control.sock` is, for both its ends.

Invariant: the socket is its owner's alone (mode 0600) from its first moment on. A path of any
length works, although the kernel takes 107 bytes (unix(7)): a longer one is named by way of an open
directory.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MAX_PATH_BYTES = 107
_MODE = 0o600


def listen(path: Path) -> socket.socket:
    """Listen at `path`, in the place of what a server that died left there. Raises OSError.

    For whoever holds the instance lock: nobody else can be listening.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The socket's mode is the file's, when it is bound.
        os.fchmod(sock.fileno(), _MODE)
        with _address_of(path) as address:
            sock.bind(address)
        sock.listen()
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def connect(path: Path, timeout_s: float) -> socket.socket:
    """Connect to the server at `path`; `timeout_s` is for each wait. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        with _address_of(path) as address:
            sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


@contextmanager
def _address_of(path: Path) -> Iterator[str]:
    if len(os.fsencode(path)) <= _MAX_PATH_BYTES:
        yield str(path)
        return
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
