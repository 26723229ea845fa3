"""A failed request bears one name in its answer, its access line and the log; others bear none."""

import json
import logging
import os
import re
from pathlib import Path

import pytest

from engine.errors import UpstreamUnavailable
from server.access_log import AccessLog, Renderer
from server.errors import describe
from server.refusals import PathUnknown
from server.reply import send_problem
from server.request_id import identify
from server.settings import LogFormat
from tests.fakes.exchange import FakeExchange
from tests.fakes.transport import open_site

MADE = re.compile(r"[0-9a-f]{8}-[0-9a-f]{6}")


def fail(**headers: str) -> FakeExchange:
    exchange = FakeExchange(b"/nowhere", headers=headers)
    send_problem(exchange, describe(PathUnknown("/nowhere"), None))
    return exchange


def test_an_error_names_itself_and_no_two_alike() -> None:
    names = [fail().fields["x-request-id"] for _ in range(3)]
    assert all(MADE.fullmatch(name) for name in names)
    assert len(set(names)) == 3


@pytest.mark.parametrize("given", ["a", "7f3c-1", "Root=1-6789-abcd", "x" * 128])
def test_a_clients_name_is_taken_over(given: str) -> None:
    exchange = FakeExchange(b"/", headers={"x-request-id": given})
    assert identify(exchange) == exchange.request_id == given


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, 'quo"ted', "line\\n", "é", "a, b"])
def test_a_name_that_does_harm_is_not(given: str) -> None:
    exchange = FakeExchange(b"/", headers={"x-request-id": given})
    assert MADE.fullmatch(identify(exchange))


def test_a_name_stays() -> None:
    exchange = FakeExchange(b"/")
    assert identify(exchange) == identify(exchange)


async def write_line(exchange: FakeExchange, log_format: LogFormat, path: Path) -> str:
    """Have the access log write a line about an exchange."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    log = AccessLog(fd, Renderer(log_format, {}))
    log.exchange_over(exchange, 1, 0.1)
    await log.aclose()
    line = os.pread(fd, 10_000, 0)
    os.close(fd)
    return line.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("log_format", LogFormat)
async def test_the_access_line_of_what_failed_bears_it(
    log_format: LogFormat, tmp_path: Path
) -> None:
    exchange = fail(**{"x-request-id": "job-7"})
    line = await write_line(exchange, log_format, tmp_path / "log")
    if log_format is LogFormat.TEXT:
        assert " request_id=job-7 " in line
        assert re.search(r" remote=\S+ user_agent=.* cause=.*\n$", line)
    else:
        assert json.loads(line)["request_id"] == "job-7"


@pytest.mark.anyio
@pytest.mark.parametrize("log_format", LogFormat)
async def test_a_hits_line_has_none(log_format: LogFormat, tmp_path: Path) -> None:
    exchange = FakeExchange(b"/", headers={"x-request-id": "job-7"}, status=200)
    assert "request_id" not in await write_line(exchange, log_format, tmp_path / "log")


@pytest.mark.anyio
async def test_answer_access_line_and_log_line_agree(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a request that made the handler fail, and of one that is no HTTP."""
    caplog.set_level(logging.INFO)
    fd = os.open(tmp_path / "log", os.O_RDWR | os.O_CREAT)
    async with open_site(tmp_path) as site:
        log = AccessLog(fd, Renderer(LogFormat.JSON, {}))
        site.endpoint.observers = (log,)
        failed = await (await site.connect()).get("/fail")
        malformed = await site.connect()
        malformed.send(b"BAD\r\n\r\n")
        refused = await malformed.read()
        await log.aclose()
    lines = [json.loads(line) for line in os.pread(fd, 10_000, 0).splitlines()]
    os.close(fd)
    assert (failed.status, lines[0]["status"], lines[1]["status"]) == (500, 500, 400)
    assert failed.fields["x-request-id"] == lines[0]["request_id"]
    assert f"request_id={lines[0]['request_id']}" in caplog.text
    assert refused.fields["x-request-id"] == lines[1]["request_id"]


def test_upstreams_faults_are_named_too() -> None:
    exchange = FakeExchange(b"/v2/a/manifests/1")
    send_problem(exchange, describe(UpstreamUnavailable("refused"), None))
    assert exchange.answer.status == 503
    assert exchange.fields["x-request-id"] == exchange.request_id
