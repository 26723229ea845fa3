"""Sockets to listen on: TCP over IPv4 and IPv6, and unix sockets.

Invariant: a unix socket's file is removed only where nobody listens on it, and in the end only if
it is still ours. An address that cannot be had is a `ListenError` that says which and why.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from server.settings import Listener

BACKLOG = 4096  # net.core.somaxconn's default, which bounds it anyway


class ListenError(Exception):
    """An address that cannot be listened on."""

    def __init__(self, listener: Listener, cause: OSError) -> None:
        super().__init__(f"cannot listen on {listener}: {_explain(cause)}")


@dataclass(frozen=True, slots=True)
class OpenListener:
    """A listening socket, the address that it really has, and the inode of a unix socket's file."""

    sock: socket.socket
    address: Listener
    inode: int | None = None

    def close(self) -> None:
        """Stop listening, and remove a unix socket's file if it is still this socket's."""
        # A loop may hold on to the socket for another turn: refuse clients from now on, unless it
        # has let go already.
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if self.inode is not None and _find_inode(self.address.path) == self.inode:
            os.unlink(self.address.path)


def open_listeners(listeners: Iterable[Listener]) -> list[OpenListener]:
    """Listen on all of them or on none. Raises `ListenError`."""
    with ExitStack() as undo:
        opened: list[OpenListener] = []
        for listener in listeners:
            try:
                found = [_open_unix(listener.path)] if listener.path else _open_tcp(listener)
            except OSError as exc:
                raise ListenError(listener, exc) from exc
            for each in found:
                undo.callback(each.close)
            opened += found
        undo.pop_all()
        return opened


def _open_tcp(listener: Listener) -> list[OpenListener]:
    if not listener.host:
        return [_open_everywhere(listener.port)]
    addresses = dict.fromkeys(
        (family, address)
        for family, _, _, _, address in socket.getaddrinfo(
            listener.host, listener.port, type=socket.SOCK_STREAM
        )
    )
    with ExitStack() as undo:
        opened: list[OpenListener] = []
        missing: OSError | None = None
        for family, address in addresses:
            try:
                sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
            except OSError as exc:
                if exc.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = exc  # `localhost` may name an IPv6 address that this machine lacks
            else:
                undo.callback(sock.close)
                opened.append(_describe(sock))
        if missing is not None and not opened:
            raise missing
        undo.pop_all()
        return opened


def _open_everywhere(port: int) -> OpenListener:
    """Listen on all addresses of the machine, by one socket for IPv4 and IPv6 where it has both."""
    is_dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if is_dual else socket.AF_INET
    return _describe(
        socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=is_dual)
    )


def _describe(sock: socket.socket) -> OpenListener:
    host, port = sock.getsockname()[:2]
    return OpenListener(sock, Listener(host, port))


def _open_unix(path: str) -> OpenListener:
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        return OpenListener(sock, Listener(path=path), os.stat(path).st_ino)
    except BaseException:
        sock.close()
        raise


def _remove_stale(path: str) -> None:
    """Remove a socket that a dead server left behind; one that is listened on stays."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind will say that the address is in use
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def _find_inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return None


def _explain(cause: OSError) -> str:
    # `create_server` writes the address into `strerror` once more; a name that cannot be resolved
    # has no errno of the system's.
    if cause.errno is None or isinstance(cause, socket.gaierror):
        return cause.strerror or str(cause)
    return os.strerror(cause.errno).lower()
