"""Debian's haproxy before a mirror, in each of the ways that it can say who a client is."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.fakes.child import Child, clean_environment

PROGRAM = shutil.which("haproxy", path="/usr/sbin:/usr/bin")

# By the PROXY protocol, for connections; by a field, for requests.
BINARY, TEXT, WITH_EXTENSIONS = (
    "send-proxy-v2",
    "send-proxy",
    "send-proxy-v2 proxy-v2-options crc32c",
)
FIELD = "forwardfor"


@contextmanager
def run_haproxy(directory: Path, mirror: str, way: str) -> Iterator[str]:
    """Run a proxy that listens on 127.0.0.1; gives its address. The mirror sees it as 127.0.0.1."""
    is_http = way == FIELD
    directory.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # It takes the listening socket over, so that the port is free for certain.
        listener.set_inheritable(True)
        config = directory / "haproxy.cfg"
        config.write_text(
            f"defaults\n mode {'http' if is_http else 'tcp'}\n"
            " timeout connect 10s\n timeout client 60s\n timeout server 60s\n"
            f"{' option forwardfor' if is_http else ''}\n"
            f"listen mirror\n bind fd@{listener.fileno()}\n"
            f" server mirror {mirror} {'' if is_http else way}\n"
        )
        argv = [str(PROGRAM), "-db", "-f", str(config)]
        log = directory / "haproxy.log"
        environment = clean_environment(directory)
        with Child(argv, env=environment, log=log, pass_fds=(listener.fileno(),)):
            yield f"127.0.0.1:{listener.getsockname()[1]}"
