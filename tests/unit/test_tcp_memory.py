"""How much a socket may queue of the kernel's memory, and when that is looked at."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import server.tcp_memory as module
from server.tcp_memory import (
    MIN_QUEUE_BYTES,
    Plenty,
    TcpMemory,
    derive_first_pages,
    derive_most_bytes,
    derive_queue_bytes,
    open_tcp_memory,
    parse_used_pages,
)

MIB = 1024 * 1024
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
SOCKSTAT = """sockets: used 161
TCP: inuse 146 orphan 0 tw 4357 alloc 146 mem {}
UDP: inuse 0 mem 256
UDPLITE: inuse 0
RAW: inuse 0
FRAG: inuse 0 memory 0
"""
FIRST_PAGES = 1_000_000
MOST_BYTES = 4 * MIB


@given(st.integers(0, 1 << 40), st.integers(0, 1 << 40))
def test_a_queue_is_the_most_or_a_smaller_power_of_two(used: int, first: int) -> None:
    queue_bytes = derive_queue_bytes(used, first, MOST_BYTES)
    assert MIN_QUEUE_BYTES <= queue_bytes <= MOST_BYTES
    assert queue_bytes == MOST_BYTES or queue_bytes.bit_count() == 1


def test_nobody_is_kept_short_while_most_is_free() -> None:
    assert derive_queue_bytes(512 * MIB, 1024 * MIB, MOST_BYTES) == MOST_BYTES


@given(st.integers(0, 1 << 36), st.integers(0, 1 << 36), st.integers(1, 1 << 36))
def test_the_more_is_used_the_less_is_queued(one: int, other: int, first: int) -> None:
    less, more = sorted((one, other))
    at_less, at_more = (derive_queue_bytes(used, first, MOST_BYTES) for used in (less, more))
    assert at_less >= at_more


@given(st.integers(64 * MIB, 1 << 36), st.integers(1, 5_000))
def test_however_many_do_not_read_use_passes_the_first_threshold_by_the_least_queues_only(
    first_bytes: int, count: int
) -> None:
    used_bytes = least_count = 0
    for _ in range(count):
        queue_bytes = derive_queue_bytes(used_bytes, first_bytes, MOST_BYTES)
        least_count += queue_bytes == MIN_QUEUE_BYTES
        used_bytes += queue_bytes
    assert used_bytes <= first_bytes + least_count * MIN_QUEUE_BYTES


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        (SOCKSTAT.format(18), 18),
        ("sockets: used 1\n", 0),
        ("TCP: inuse 5 orphan 0\n", 0),
        ("TCP: inuse 5 mem\n", 0),
        ("", 0),
    ],
)
def test_used_pages_are_found(text: str, pages: int) -> None:
    assert parse_used_pages(text.encode()) == pages


def test_the_first_threshold_is_the_systems_or_the_kernels_default() -> None:
    assert derive_first_pages("287898\t383866\t575796\n", 1) == 287_898
    assert derive_first_pages("", 64_000) == 3_000


@pytest.mark.parametrize(
    ("tcp_wmem", "tcp_notsent_lowat", "most_bytes"),
    [
        ("4096\t16384\t16777216\n", "4294967295\n", 15 * MIB),
        ("4096\t16384\t4194304\n", "131072\n", MIB // 8),
        ("", "", 15 * MIB // 4),
    ],
)
def test_the_most_is_what_the_system_lets_a_socket_queue(
    tcp_wmem: str, tcp_notsent_lowat: str, most_bytes: int
) -> None:
    assert derive_most_bytes(tcp_wmem, tcp_notsent_lowat) == most_bytes


@pytest.fixture
def sockstat(tmp_path: Path) -> Path:
    path = tmp_path / "sockstat"
    path.write_text(SOCKSTAT.format(0))
    return path


@pytest.fixture
def memory(sockstat: Path) -> Iterator[TcpMemory]:
    fd = os.open(sockstat, os.O_RDONLY)
    yield TcpMemory(fd, FIRST_PAGES, MOST_BYTES)
    os.close(fd)


def test_it_looks_again_once_so_much_was_sent(memory: TcpMemory, sockstat: Path) -> None:
    assert memory.bound_queue() == MOST_BYTES
    sockstat.write_text(SOCKSTAT.format(FIRST_PAGES))
    memory.sent_bytes += 16 * MIB - 1
    assert memory.bound_queue() == MOST_BYTES
    memory.sent_bytes += 1
    assert memory.bound_queue() == MIN_QUEUE_BYTES
    sockstat.write_text(SOCKSTAT.format(0))
    memory.sent_bytes += 16 * MIB
    assert memory.bound_queue() == MOST_BYTES


def test_what_cannot_be_read_changes_nothing_and_is_said(
    sockstat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fd = os.open(sockstat, os.O_RDONLY)
    memory = TcpMemory(fd, FIRST_PAGES, MOST_BYTES)
    os.close(fd)
    assert memory.bound_queue() == MOST_BYTES
    assert "memory for TCP not read" in caplog.text


def test_the_log_says_once_in_a_while_what_is_used_and_what_can_be_done(
    memory: TcpMemory, sockstat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for used_pages in (FIRST_PAGES, FIRST_PAGES - 1, 0, FIRST_PAGES):
        sockstat.write_text(SOCKSTAT.format(used_pages))
        memory.bound_queue()
        memory.sent_bytes += 16 * MIB
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    used = f"used_bytes={FIRST_PAGES * PAGE_BYTES} tcp_mem_bytes={FIRST_PAGES * PAGE_BYTES}"
    assert used in record.getMessage()
    assert "raise net.ipv4.tcp_mem" in record.getMessage()


def test_this_machines_memory_is_read_and_let_go() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with open_tcp_memory() as memory:
        assert isinstance(memory, TcpMemory)
        memory.bound_queue()
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
    assert set(os.listdir("/proc/self/fd")) == before


def test_where_the_kernel_does_not_tell_there_is_plenty(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_SOCKSTAT", tmp_path / "nothing")
    with open_tcp_memory() as memory:
        assert isinstance(memory, Plenty)
        assert memory.bound_queue() == 0


def test_in_a_containers_network_the_kernels_default_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sockstat: Path
) -> None:
    monkeypatch.setattr(module, "_SOCKSTAT", sockstat)
    monkeypatch.setattr(module, "_SYSCTL", tmp_path / "nothing")
    default_pages = os.sysconf("SC_PHYS_PAGES") * 3 // 64
    for used_pages in (0, default_pages // 2, default_pages):
        sockstat.write_text(SOCKSTAT.format(used_pages))
        with open_tcp_memory() as memory:
            used_bytes, first_bytes = used_pages * PAGE_BYTES, default_pages * PAGE_BYTES
            most_bytes = derive_most_bytes("", "")
            assert memory.bound_queue() == derive_queue_bytes(used_bytes, first_bytes, most_bytes)
