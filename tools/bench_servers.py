"""The servers of a benchmark: Moorage, nginx with the same bytes as files, other registries.

Invariant: each is configured as its documentation advises for speed, with its access log on, and
listens on a free port of 127.0.0.1. A server's directory holds all of its state.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from engine.descriptor import OCI_MANIFEST
from tools.bench_certificate import Pair
from tools.bench_content import Content
from tools.bench_process import Child, Command, clean_environment

# A namespace of Moorage's whose tags hold for a while; it is the same upstream.
FRESH_NAMESPACE = "fresh.example"
_SBIN_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
# Room for the warm content and for what a fill needs, but not for all that the churn brings.
_CACHE_BYTES = 400_000_000


class Server:
    """A running server, stopped when its `with` block ends."""

    def __init__(self, child: Child, address: str, log: Path, *, is_tls: bool = False) -> None:
        self.child = child
        self.address = address
        self.log = log
        self.is_tls = is_tls

    @property
    def url(self) -> str:
        """Base URL."""
        return f"{'https' if self.is_tls else 'http'}://{self.address}"

    @property
    def pid(self) -> int:
        """The process id."""
        return self.child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.child.stop()


@dataclass(frozen=True, slots=True)
class Target:
    """A program that is measured.

    `launch` starts it with a directory of its own, which exists, on a processor, and for a mirror
    with the upstream's URL. `holds_tags`: it can serve a tag without asking upstream. `is_tls`: it
    speaks TLS, and is asked for nothing but the cases about that.
    """

    name: str
    launch: Callable[[Path, int, str], Server]
    is_mirror: bool = True
    holds_tags: bool = False
    is_tls: bool = False


def find_program(name: str) -> str | None:
    """Find a program, also where only root looks."""
    return shutil.which(name, path=_SBIN_PATH)


def moorage(
    name: str, checkout: Path, cache_bytes: int = _CACHE_BYTES, pair: Pair | None = None
) -> Target:
    """Moorage as it is in `checkout`, run by our own interpreter and libraries."""
    is_tls = pair is not None

    def launch(directory: Path, cpu: int, upstream_url: str) -> Server:
        config = directory / "config.yml"
        config.write_text(json.dumps(_moorage_config(directory, upstream_url, cache_bytes, pair)))
        # With -c the working directory comes first on the path, before what is installed.
        code = "from tools.cli import main; main()"
        argv = [sys.executable, "-c", code, "serve", str(config)]
        server = _start(argv, directory, cpu, r"listening addr=(\S+)", checkout)
        server.is_tls = is_tls
        return server

    return Target(name, launch, holds_tags=True, is_tls=is_tls)


def registry(name: str, program: str) -> Target:
    """distribution's registry, as a pull-through mirror."""

    def launch(directory: Path, cpu: int, upstream_url: str) -> Server:
        config = directory / "config.yml"
        config.write_text(json.dumps(_registry_config(directory, upstream_url)))
        argv = [program, "serve", str(config)]
        return _start(argv, directory, cpu, r"listening on (127\.0\.0\.1:\d+)")

    return Target(name, launch)


def nginx_static(content: Content, name: str = "nginx", pair: Pair | None = None) -> Target:
    """nginx with the content as static files: what a server can do that knows no registry."""
    is_tls = pair is not None

    def launch(directory: Path, cpu: int, _: str) -> Server:
        log = "access_log access.log combined buffer=64k;"
        if pair is not None:
            log += f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};"
            log += "ssl_protocols TLSv1.2 TLSv1.3;"
        return start_nginx(directory, cpu, content, log, is_tls=is_tls)

    return Target(name, launch, is_mirror=False, is_tls=is_tls)


def start_upstream(directory: Path, cpu: int, content: Content) -> Server:
    """Start the upstream: nginx that also says what a registry says. Each request is logged."""
    tags = "".join(f'"{path}" {digest};\n' for path, digest in content.tags.items())
    return start_nginx(
        directory,
        cpu,
        content,
        f"""
        access_log access.log combined;
        map_hash_bucket_size 256;
        map $uri $content_digest {{
            default "";
            "~^/v2/.+/(?:blobs|manifests)/(?<digest>sha256:[0-9a-f]+)$" $digest;
            {tags}
        }}
        """,
        f"""
        add_header Docker-Content-Digest $content_digest;
        location = /v2/ {{ return 200 "{{}}"; }}
        location ~ ^/v2/.+/manifests/ {{ default_type {OCI_MANIFEST}; }}
        """,
    )


def start_nginx(
    directory: Path,
    cpu: int,
    content: Content,
    http: str,
    server: str = "",
    *,
    is_tls: bool = False,
) -> Server:
    """Start nginx over the content, with more configuration for its http and server sections."""
    program = find_program("nginx")
    assert program is not None, "nginx is not installed"
    with socket.create_server(("127.0.0.1", 0), backlog=511) as sock:
        host, port = sock.getsockname()
        address = f"{host}:{port}"
        config = directory / "nginx.conf"
        listen = f"{address} ssl" if is_tls else address
        config.write_text(_nginx_config(directory, listen, content.root, http, server))
        log = directory / "log"
        argv = [program, "-p", str(directory), "-c", str(config)]
        # nginx cannot choose a port, but takes over the sockets that this variable names: so it
        # replaces itself, and a port that is free now is still ours then.
        environment = {"NGINX": f"{sock.fileno()};"}
        child = Child(Command(argv, cpu, environment=environment), log, [sock.fileno()])
    return Server(child, address, directory / "access.log", is_tls=is_tls)


def program_version(argv: list[str]) -> str:
    """The first line that a program says of its version."""
    done = subprocess.run(
        argv, env=clean_environment(), capture_output=True, text=True, timeout=10, check=False
    )
    return (done.stdout or done.stderr).strip().partition("\n")[0]


def _start(
    argv: list[str], directory: Path, cpu: int, pattern: str, working: Path | None = None
) -> Server:
    log = directory / "log"
    environment = {"OTEL_TRACES_EXPORTER": "none"}  # distribution 3 would look for a collector
    child = Child(Command(argv, cpu, working, environment), log)
    return Server(child, child.wait_for(pattern), log)


def _moorage_config(
    directory: Path, upstream_url: str, cache_bytes: int, pair: Pair | None
) -> dict[str, object]:
    tls = {} if pair is None else {"certificate": str(pair.certificate), "key": str(pair.key)}
    return {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {
            "addr": "127.0.0.1:0",
            "debug": {"addr": "127.0.0.1:0", "prometheus": {"enabled": True}},
            "tls": tls,
        },
        "proxy": {"remoteurl": upstream_url},
        "upstreams": {FRESH_NAMESPACE: {"remoteurl": upstream_url, "tagttl": "60s"}},
        "eviction": {"maxsize": cache_bytes, "interval": "1s"},
    }


def _registry_config(directory: Path, upstream_url: str) -> dict[str, object]:
    return {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": "127.0.0.1:0"},
        "proxy": {"remoteurl": upstream_url},
    }


def _nginx_config(directory: Path, listen: str, root: Path, http: str, server: str) -> str:
    # Without it the worker is `nobody`, who cannot read what lies in root's temporary directory.
    user = "user root;" if os.geteuid() == 0 else ""
    places = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "\n".join(f"{place}_temp_path {directory}/{place};" for place in places)
    return f"""
    {user}
    daemon off;
    pid {directory}/nginx.pid;
    error_log {directory}/error.log;
    worker_processes 1;
    worker_rlimit_nofile 8192;
    events {{ worker_connections 4096; }}
    http {{
        {temporary}
        default_type application/octet-stream;
        sendfile on;
        tcp_nopush on;
        keepalive_requests 100000000;
        open_file_cache max=1000 inactive=60s;
        {http}
        server {{
            listen {listen};
            root {root};
            {server}
        }}
    }}
    """
