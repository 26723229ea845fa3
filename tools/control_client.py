"""Operators' acts, carried out by whoever may: the running server, else this process.

Invariant: the server is asked first. Only where nobody listens is the lock taken, and where it is
held by a server that does not listen, its pid is in the error.
"""

import socket
from collections.abc import Iterator

import msgspec

from engine.acts import open_acts
from engine.errors import CacheError, StorageError
from engine.layout import Layout
from server.control_acts import carry_out
from server.control_messages import (
    Command,
    Failed,
    Pin,
    Purge,
    Quarantine,
    Reply,
    Running,
    Status,
    Unpin,
    decode_reply,
    encode,
)
from server.control_socket import connect

# A purge of a million blobs takes minutes.
_PATIENCE_S = 1800.0


class ActFailed(CacheError):
    """The server refused a command, or could not carry it out."""


async def act(layout: Layout, command: Quarantine | Purge | Pin | Unpin) -> Reply:
    """Carry out a command. Raises `CacheError`."""
    reply = ask_server(layout, command)
    if reply is None:
        async with open_acts(layout.root) as acts:
            reply = await carry_out(acts, command)
    if isinstance(reply, Failed):
        raise ActFailed(reply.error)
    return reply


def find_server(layout: Layout, patience_s: float = _PATIENCE_S) -> Running | None:
    """Ask the running server how it fares; None where there is none."""
    reply = ask_server(layout, Status(), patience_s)
    return reply if isinstance(reply, Running) else None


def ask_server(layout: Layout, command: Command, patience_s: float = _PATIENCE_S) -> Reply | None:
    """Have the running server carry out a command; None where nobody listens."""
    replies = iter_replies(layout, command, patience_s)
    if replies is None:
        return None
    (reply,) = replies
    return reply


def iter_replies(
    layout: Layout, command: Command, patience_s: float = _PATIENCE_S
) -> Iterator[Reply] | None:
    """Have the running server carry out a command; None where nobody listens.

    There is at least one reply, and `ActFailed` where the server ends before that.
    """
    try:
        sock = connect(layout.control_path, patience_s)
    except (FileNotFoundError, ConnectionRefusedError):
        return None
    except OSError as exc:
        raise StorageError(f"cannot reach the server at {layout.control_path}: {exc}") from exc
    return _converse(sock, layout, encode(command))


def _converse(sock: socket.socket, layout: Layout, line: bytes) -> Iterator[Reply]:
    with sock, sock.makefile("rb") as lines:
        try:
            sock.sendall(line)
            reply = lines.readline()
            while True:
                yield decode_reply(reply)
                reply = lines.readline()
                if not reply:
                    return
        except (OSError, msgspec.DecodeError) as exc:
            raise ActFailed(
                f"the server at {layout.control_path} ended before it answered: {exc}; "
                "what it had begun is finished when it starts again"
            ) from exc
