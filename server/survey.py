"""What the index holds, looked up now and then for people: the largest, and the next to go.

Invariant: the event loop never waits for it, and it is no burden: one reading at a time, in a
thread, and after one that took long the next is as much later. It reads as the tools do, and like
them knows by the index alone what is used.
"""

import asyncio
import logging
import threading
import time

from engine.errors import StorageError
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.index_totals import IndexTotals
from engine.index_views import RepositoryView
from engine.layout import Layout
from engine.names import Location, Repository
from engine.outlook import Expected, Outlook
from engine.settings import EngineSettings
from server.facts import LargeFacts, SurveyFacts, VictimFacts

logger = logging.getLogger(__name__)

MAX_AGE_S = 30.0
# A reading takes at most this share of the time.
_SHARE = 0.05
# Who asks first waits so long for the first reading.
PATIENCE_S = 1.0
_TOP = 10


class _Ending(Exception):
    """The server ends, so nobody wants to know any more."""


class Survey:
    """The last reading, renewed as it is asked for. `aclose` in the end."""

    def __init__(self) -> None:
        self._found: SurveyFacts | None = None
        self._renew_at = 0.0  # by the monotonic clock
        self._task: asyncio.Task[None] | None = None
        self._is_ending = threading.Event()

    async def get(self, settings: EngineSettings) -> SurveyFacts | None:
        """Give the last reading, and begin another if it is old; None: there is none yet.

        `settings` are those in force.
        """
        if self._task is None and time.monotonic() >= self._renew_at:
            self._task = asyncio.create_task(self._renew(settings), name="survey")
        if self._found is None and self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_S)
        return self._found

    async def aclose(self) -> None:
        """Have a reading under way given up."""
        self._is_ending.set()
        if self._task is not None:
            await asyncio.wait({self._task})

    async def _renew(self, settings: EngineSettings) -> None:
        began_at = time.monotonic()
        try:
            self._found = await asyncio.to_thread(asyncio.run, self._read(settings))
        except _Ending:
            logger.debug("index survey given up: the server ends")
        except StorageError as exc:
            logger.warning("index not surveyed cause=%s action=it is tried again", exc)
        finally:
            duration_s = time.monotonic() - began_at
            self._renew_at = time.monotonic() + max(MAX_AGE_S, duration_s / _SHARE)
            self._task = None

    async def _read(self, settings: EngineSettings) -> SurveyFacts:
        layout = Layout(settings.data_directory)
        async with ReadOnlyConnections(layout.index_path) as connections:
            index = IndexInspection(connections)
            totals = IndexTotals(connections, self._raise_if_ending)
            sums = await totals.sum_up()
            views = await totals.describe_repositories(is_own_wanted=False)
            views.sort(key=lambda view: view.stored_bytes, reverse=True)
            top = [Location(view.upstream, Repository(view.name)) for view in views[:_TOP]]
            largest = [_large(await index.describe_repository(one)) for one in top]
            victims = await self._list_victims(Outlook(settings, connections))
        return SurveyFacts(time.time(), sums.total.blob_count, len(views), largest, victims)

    async def _list_victims(self, outlook: Outlook) -> list[VictimFacts]:
        victims: list[VictimFacts] = []
        async for expected in outlook.iter_victims():
            self._raise_if_ending()
            victims.append(_victim(expected))
            if len(victims) == _TOP:
                break
        return victims

    def _raise_if_ending(self) -> None:
        if self._is_ending.is_set():
            raise _Ending


def _large(view: RepositoryView) -> LargeFacts:
    return LargeFacts(
        f"{view.upstream}/{view.name}",
        view.blob_count,
        view.stored_bytes,
        view.own_bytes,
        view.used_at,
    )


def _victim(expected: Expected) -> VictimFacts:
    victim = expected.victim
    return VictimFacts(
        victim.digest,
        victim.disk_bytes,
        victim.used_at,
        victim.reason.value,
        expected.needed_bytes,
    )
