"""A server to be run as a child process: `python -m tests.fakes.app_child OPTIONS`.

OPTIONS is a JSON object: `data` (a directory, whose files the scripted handler serves as well),
`listen` and `debug` (lists of `HOST:PORT` or `unix:PATH`), `draintimeout_s`, `format`, and
`is_scripted` (false: the real API over a real cache, with an upstream that is never asked).
"""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from engine.settings import EngineSettings, UpstreamSettings
from server.app import run
from server.exchange import Handler
from server.instruments import Instruments
from server.opening import open_api
from server.reloader import Reloader
from server.settings import HTTPSettings, Listener, LogFormat, LogSettings, ServerSettings
from tests.fakes.transport import ScriptedHandler


@asynccontextmanager
async def open_scripted(instruments: Instruments, _: Reloader) -> AsyncIterator[Handler]:
    """Serve what tests/fakes/transport.py knows."""
    yield ScriptedHandler(instruments.settings.engine.data_directory)


def _listeners(texts: list[str]) -> tuple[Listener, ...]:
    found = []
    for text in texts:
        host, _, port = text.rpartition(":")
        found.append(Listener(path=port) if host == "unix" else Listener(host, int(port)))
    return tuple(found)


def _build(options: dict[str, Any]) -> ServerSettings:
    upstream = UpstreamSettings("docker.io", "http://user:secret@127.0.0.1:9", ("docker.io",))
    return ServerSettings(
        EngineSettings(Path(options["data"]), (upstream,)),
        http=HTTPSettings(
            listeners=_listeners(options["listen"]),
            debug_listeners=_listeners(options.get("debug", [])),
            draintimeout_s=options.get("draintimeout_s", 25.0),
            headers=(("X-Content-Type-Options", "nosniff"),),
        ),
        log=LogSettings(formatter=LogFormat(options.get("format", "text"))),
        warnings=("a warning of the configuration",),
    )


if __name__ == "__main__":
    _options = json.loads(sys.argv[1])
    _is_scripted = _options.get("is_scripted", True)
    sys.exit(run(_build(_options), open_scripted if _is_scripted else open_api))
