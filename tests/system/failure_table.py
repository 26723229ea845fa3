"""Asks for every cell of the table of failures at once and keeps what came.

Invariant: what is warm was fetched by an earlier run of the mirror, so each cell is answered by a
mirror that has just started, and the upstreams that moved were down when it did.
"""

import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.untrusted import make_untrusted_tls
from tests.fakes.upstream import ScriptedUpstream, Seen, ThreadedUpstream
from tests.system.failure_cases import CELLS, Cell, Move, Targets
from tests.system.lab import Lab, site_of_all
from tests.system.raw import Answer


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a cell. `asked` are the requests that upstream got for it."""

    targets: Targets
    answer: Answer
    took_s: float
    asked: list[Seen]


@dataclass(frozen=True, slots=True)
class Table:
    """All cells, and the mirror that answered; it still runs."""

    lab: Lab
    found: dict[str, Found]  # by the cell's name


@contextmanager
def fill_table(directory: Path) -> Iterator[Table]:
    """Warm what is to be warm, let every upstream fail, ask all."""
    with ExitStack() as stack:
        thread = stack.enter_context(ThreadedUpstream())
        targets = [add_content(thread.upstream, cell) for cell in CELLS]
        url = thread.upstream.url
        urls = dict.fromkeys([cell.name for cell in CELLS], url)
        with site_of_all(directory, url, urls).start() as mirror:
            warm(Lab(mirror, thread, iter(())), targets)
            assert mirror.drain() == 0
        places = open_places(stack, directory) | {Move.STAYS: url}
        moved = {cell.name: places[cell.cause.move] for cell in CELLS}
        mirror = stack.enter_context(site_of_all(directory, url, moved).start())
        lab = Lab(mirror, thread, iter(()))
        yield Table(lab, ask_all(lab, targets))


def add_content(upstream: ScriptedUpstream, cell: Cell) -> Targets:
    """Give a cell an image with a layer of its own."""
    layers = (f"layer of {cell.name}".encode(),)
    config = f'{{"cell":"{cell.name}"}}'.encode()
    image = upstream.content.add_image(cell.repository, "1", layers, config)
    return Targets(cell, image)


def open_places(stack: ExitStack, directory: Path) -> dict[Move, str]:
    """Open where upstreams move to; the stack closes it."""
    deaf = stack.enter_context(socket.socket())
    deaf.bind(("127.0.0.1", 0))  # bound, not listening: it refuses
    strange = stack.enter_context(run_strange())
    untrusted = stack.enter_context(ThreadedUpstream(tls=make_untrusted_tls(directory)))
    return {
        Move.REFUSES: f"http://127.0.0.1:{deaf.getsockname()[1]}",
        Move.UNTRUSTED: untrusted.upstream.url,
        Move.STRANGE: strange,
    }


@contextmanager
def run_strange() -> Iterator[str]:
    """Run a server that answers everybody as SSH does."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(64 * 1024)
            self.request.sendall(b"SSH-2.0-strange\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def warm(lab: Lab, targets: list[Targets]) -> None:
    """Fetch what is to be here: the manifest by its tag, and the layer."""
    for target in targets:
        if target.cell.is_warm:
            for path in (target.tag, target.blob):
                answer = lab.ask(f"{path}?ns={target.cell.name}")
                assert answer.status == 200, answer


def ask_all(lab: Lab, targets: list[Targets]) -> dict[str, Found]:
    """Let every upstream fail and ask for all cells at the same time."""
    for cell in CELLS:
        if cell.cause.fault is not None:
            lab.upstream.fail(cell.cause.fault, repository=cell.repository, times=None)
    before = len(lab.upstream.requests)
    # Most of the time is spent waiting: for deadlines, which are long where nothing is here.
    with ThreadPoolExecutor(len(targets)) as pool:
        answers = list(pool.map(lambda target: ask_for(lab, target), targets))
    later = lab.upstream.requests[before:]
    found = {}
    for target, (answer, took_s) in zip(targets, answers, strict=True):
        asked = [seen for seen in later if seen.repository == target.cell.repository]
        found[target.cell.name] = Found(target, answer, took_s, asked)
    return found


def ask_for(lab: Lab, target: Targets) -> tuple[Answer, float]:
    """Ask for a cell as the client that its cause is about; also tell how long it took."""
    cell = target.cell
    headers = {"User-Agent": cell.cause.user_agent}
    began_at = time.monotonic()
    answer = lab.ask(f"{target.asked}?ns={cell.name}", headers, cell.ask.method)
    return answer, time.monotonic() - began_at
