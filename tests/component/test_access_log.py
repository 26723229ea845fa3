"""One line per exchange, complete and parseable; a reader that does not read costs lines only."""

import json
import logging
import os
import re
from pathlib import Path
from typing import cast

import pytest

from engine.names import Digest
from server import access_log
from server.access_log import AccessLog, Renderer
from server.exchange import Exchange
from server.logs import LineFormatter
from server.settings import LogFormat
from tests.fakes.transport import open_site

AT = 1795500000.5
DIGEST = Digest("sha256:" + "a" * 64)


class FakeExchange:
    """What an access line is made of."""

    method = b"GET"
    target = b"/v2/library/busybox/manifests/1.35?ns=docker.io&token=hunter2"
    http_version = "1.1"
    remote = "192.0.2.7"
    status = 200
    cache_status = "hit"
    upstream = "docker.io"
    digest = DIGEST
    cause = ""
    request_id = ""

    def header(self, name: bytes) -> bytes | None:
        return {
            b"user-agent": b'docker/20.10 "x"\xe9',
            b"authorization": b"Basic aHVudGVyMg==",
        }.get(name)


EXPECTED = {
    "method": "GET",
    "path": "/v2/library/busybox/manifests/1.35",
    "status": 200,
    "bytes_sent": 1234,
    "duration_s": 0.000123,
    "cache_status": "hit",
    "upstream": "docker.io",
    "digest": DIGEST,
    "remote": "192.0.2.7",
    "user_agent": 'docker/20.10 "x"é',
    "cause": "",
}


def render(log_format: LogFormat, fields: dict[str, str] | None = None) -> str:
    exchange = cast(Exchange, FakeExchange())
    notes = [(exchange, exchange.remote, 1234, 0.0001234)]
    line = Renderer(log_format, fields or {}).render(notes, AT)
    rendered = line.decode()
    assert "hunter2" not in rendered
    assert "aHVudGVyMg" not in rendered
    assert rendered.count("\n") == 1
    return rendered


def test_text_line() -> None:
    assert render(LogFormat.TEXT, {"env": "prod", "site": "a b"}) == (
        "2026-11-24T06:00:00Z info access method=GET path=\"/v2/library/busybox/manifests/1.35\""
        f' status=200 bytes_sent=1234 duration_s=0.000123 cache_status="hit" upstream=docker.io'
        f' digest={DIGEST} remote=192.0.2.7 user_agent="docker/20.10 \\"x\\"é" cause=""'
        ' env=prod site="a b"\n'
    )  # fmt: skip


def test_json_line() -> None:
    line = json.loads(render(LogFormat.JSON, {"env": "prod"}))
    assert line == EXPECTED | {
        "level": "info", "msg": "access", "time": "2026-11-24T06:00:00Z", "env": "prod"
    }  # fmt: skip


def test_logstash_line() -> None:
    line = json.loads(render(LogFormat.LOGSTASH, {"env": "prod"}))
    assert line == EXPECTED | {
        "@timestamp": "2026-11-24T06:00:00Z", "@version": "1", "level": "info",
        "message": "access", "env": "prod",
    }  # fmt: skip


@pytest.mark.anyio
async def test_every_exchange_has_its_line_and_lines_keep_their_order(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    log = AccessLog(fd, Renderer(LogFormat.JSON, {}))
    for number in range(5000):
        log.exchange_over(FakeExchange(), number, 0)  # type: ignore[arg-type]  # a part of it
    await log.aclose()
    os.close(fd)
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["bytes_sent"] for line in lines] == list(range(5000))


@pytest.mark.anyio
async def test_lines_come_while_the_server_runs(tmp_path: Path) -> None:
    read_fd, write_fd = os.pipe()
    async with open_site(tmp_path) as site:
        log = AccessLog(write_fd, Renderer(LogFormat.TEXT, {}))
        site.endpoint.observers = (log,)
        client = await site.connect()
        await client.get("/hit/3")
        client.send(b"BAD\r\n\r\n")
        await client.read()
        lines = b""
        while lines.count(b"\n") < 2:
            lines += await site.endpoint.loop.run_in_executor(None, os.read, read_fd, 10_000)
        await log.aclose()
    os.close(read_fd)
    os.close(write_fd)
    assert re.search(rb'method=GET path="/hit/3" status=200 bytes_sent=\d+ ', lines)
    assert b'method=- path="-" status=400' in lines


@pytest.mark.anyio
async def test_a_reader_that_does_not_read_costs_lines_that_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "MAX_QUEUED_BYTES", 200_000)
    monkeypatch.setattr(access_log, "_BATCH_LINES", 100)
    read_fd, write_fd = os.pipe()
    log = AccessLog(write_fd, Renderer(LogFormat.TEXT, {}))
    for _ in range(3000):
        log.exchange_over(FakeExchange(), 0, 0)  # type: ignore[arg-type]  # a part of it
    dropped = log.dropped_count
    assert 0 < dropped < 3000
    received = b""
    while received.count(b"\n") < 3000 - dropped:
        received += os.read(read_fd, 100_000)
        log._hand_over()
    await log.aclose()
    os.close(read_fd)
    os.close(write_fd)
    assert f"access log lines dropped count={dropped}" in caplog.text
    assert received.count(b"\n") == 3000 - dropped


@pytest.mark.anyio
async def test_a_closed_reader_ends_the_log_but_not_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    log = AccessLog(write_fd, Renderer(LogFormat.TEXT, {}))
    log.exchange_over(FakeExchange(), 0, 0)  # type: ignore[arg-type]  # a part of it
    await log.aclose()
    os.close(write_fd)
    assert "access log ends: writing failed" in caplog.text


@pytest.mark.anyio
async def test_closing_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "_CLOSE_S", 0.01)
    read_fd, write_fd = os.pipe()
    log = AccessLog(write_fd, Renderer(LogFormat.TEXT, {}))
    for _ in range(1000):
        log.exchange_over(FakeExchange(), 0, 0)  # type: ignore[arg-type]  # a part of it
    await log.aclose()
    assert "its reader does not read" in caplog.text
    os.close(read_fd)  # the thread's write fails now, and it ends
    log._thread.join()
    os.close(write_fd)


def format_record(log_format: LogFormat, level: int, message: str) -> str:
    record = logging.LogRecord("server", level, __file__, 1, message, None, None)
    record.created = AT
    return LineFormatter(log_format, {"env": "prod"}).format(record)


def test_log_lines_in_the_three_formats() -> None:
    assert format_record(LogFormat.TEXT, logging.WARNING, "disk low free_bytes=5") == (
        "2026-11-24T06:00:00Z warn disk low free_bytes=5 env=prod"
    )
    assert json.loads(format_record(LogFormat.JSON, logging.ERROR, 'a "b"\nc')) == {
        "level": "error", "msg": 'a "b"\nc', "time": "2026-11-24T06:00:00Z", "env": "prod"
    }  # fmt: skip
    assert json.loads(format_record(LogFormat.LOGSTASH, logging.DEBUG, "x")) == {
        "@timestamp": "2026-11-24T06:00:00Z", "@version": "1", "level": "debug", "message": "x",
        "env": "prod",
    }  # fmt: skip


def test_a_message_of_several_lines_cannot_pass_for_several_messages() -> None:
    lines = format_record(LogFormat.TEXT, logging.INFO, "one\n2026-11-24T06:00:00Z info two")
    assert lines.splitlines()[1].startswith("  ")
