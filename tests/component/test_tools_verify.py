"""`verify-digests`: what is wrong is found, what is merely gone is not, and a run can go on."""

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.blobdir import BlobDirectory
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from engine.names import Digest
from engine.verification import Check
from tests.fakes.damage import blob_path, flip_bit, kept_in_quarantine, lose_index, truncate
from tests.fakes.stocked import BASE, Stock, Upstreams, stock
from tests.fakes.upstream_content import digest_of
from tools import verify_state, verify_work
from tools.cli import main
from tools.verify_jobs import Choice, Job, is_chosen, iter_jobs
from tools.verify_run import Run
from tools.verify_state import Finding, State
from tools.verify_work import Fault, Pool, Verdict

Tool = Callable[..., Result]


@pytest.fixture
def stocked(tmp_path: Path) -> Stock:
    return stock(tmp_path / "data")


@pytest.fixture
def tool(stocked: Stock) -> Tool:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["verify-digests", *arguments, "--data", str(stocked.path)])

    return run


def findings(result: Result) -> dict[str, list[str]]:
    """What is wrong, by digest."""
    assert result.exit_code == (1 if result.stdout else 0), result.output
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    return {row[1]: row for row in rows}


def document(result: Result) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize("options", [[], ["--quick"]], ids=str)
def test_a_sound_cache_is_verified_whole_and_silently(
    tool: Tool, stocked: Stock, options: list[str]
) -> None:
    assert findings(tool(*options)) == {}
    found = document(tool(*options, "--json"))
    assert found["checked_count"] == len(stocked.all_digests())
    assert found["findings"] == []


@pytest.mark.parametrize("options", [[], ["--quick"]], ids=str)
def test_each_kind_of_damage_is_a_line_with_its_path_and_what_to_do(
    tool: Tool, stocked: Stock, options: list[str]
) -> None:
    image = stocked.images["docker.io/library/busybox:1.35"]
    flip_bit(blob_path(stocked.path, image.layers[0]), 29_999)
    truncate(blob_path(stocked.path, image.layers[1]), 5)
    blob_path(stocked.path, image.config).unlink()
    blob_path(stocked.path, image.manifest).unlink()
    blob_path(stocked.path, image.manifest).mkdir()
    found = findings(tool(*options))
    assert {digest: row[0] for digest, row in found.items()} == {
        image.layers[0]: "damaged",
        image.layers[1]: "wrong-size",
        image.config: "missing",
        image.manifest: "unreadable",
    }
    for digest, (_, _, path, detail, action) in found.items():
        assert path == str(blob_path(stocked.path, Digest(digest)))
        assert detail
        assert action


def test_quarantine_takes_out_what_is_damaged_and_the_next_run_is_clean(
    tool: Tool, stocked: Stock
) -> None:
    layer = stocked.images["docker.io/library/busybox:1.35"].layers[1]
    flip_bit(blob_path(stocked.path, layer))
    found = findings(tool("--quarantine"))
    (kept,) = (stocked.path / "quarantine").iterdir()
    assert str(kept) in found[layer][4]
    assert kept_in_quarantine(stocked.path) == [f"sha256-{layer.hex}"]
    assert findings(tool()) == {}


def test_without_an_index_all_files_are_verified_by_their_digests(
    tool: Tool, stocked: Stock
) -> None:
    layer = stocked.images["docker.io/library/busybox:1.35"].layers[1]
    lose_index(stocked.path)
    flip_bit(blob_path(stocked.path, layer))
    assert findings(tool("--quick")).keys() == {layer}
    assert not Layout(stocked.path).index_path.exists()
    for arguments in (["busybox"], ["ghcr.io/org/app"]):
        refused = tool(*arguments)
        assert refused.exit_code == 1
        assert "without an index" in refused.stderr


def test_a_damaged_index_is_no_obstacle(tool: Tool, stocked: Stock) -> None:
    Layout(stocked.path).index_path.write_bytes(b"garbage" * 1000)
    found = document(tool("--json"))
    assert found["checked_count"] == len(stocked.all_digests())


def test_files_without_a_row_are_verified_too(tool: Tool, stocked: Stock) -> None:
    stray = digest_of(b"what it should be")
    path = blob_path(stocked.path, stray)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"what it is")
    assert findings(tool("--quick")).keys() == {stray}


def test_one_digest_or_one_repository_is_verified_alone(tool: Tool, stocked: Stock) -> None:
    layer = stocked.images["docker.io/library/busybox:1.35"].layers[1]
    assert document(tool(layer, "--json"))["checked_count"] == 1
    assert document(tool("docker.io/library/busybox", "--json"))["checked_count"] == 7
    flip_bit(blob_path(stocked.path, layer))
    assert findings(tool("ghcr.io/org/app")) == {}
    assert findings(tool("busybox")).keys() == {layer}
    absent = tool("sha256:" + "0" * 64)
    assert (absent.exit_code, absent.stdout) == (1, "")
    assert "not stored here" in absent.stderr


def test_only_what_was_stored_since_is_verified(tool: Tool, stocked: Stock) -> None:
    count = len(stocked.all_digests())
    assert document(tool("--since", "1h", "--json"))["checked_count"] == count
    assert document(tool("--since", "2999-01-01", "--json"))["checked_count"] == 0


def test_a_sample_is_a_share_by_lot_and_another_one_each_time() -> None:
    digests = [digest_of(b"%d" % number) for number in range(4000)]
    samples = [
        {digest for digest in digests if is_chosen(digest, 0.0, Choice(sample=0.25, salt=salt))}
        for salt in (1, 2)
    ]
    assert all(850 < len(sample) < 1150 for sample in samples)
    assert 150 < len(samples[0] & samples[1]) < 350
    assert not any(is_chosen(digest, 0.0, Choice(sample=0.0)) for digest in digests)


@pytest.mark.parametrize(
    "arguments",
    [
        ["busybox:1.35"],
        ["Busybox"],
        ["--sample", "101%"],
        ["--sample", "some"],
        ["--since", "yesterday"],
        ["--resume"],
    ],
)
def test_wrong_usage_is_two(tool: Tool, arguments: list[str]) -> None:
    refused = tool(*arguments)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr


def test_a_run_that_was_broken_off_goes_on_and_tells_all_it_found(
    tool: Tool, stocked: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    digests = sorted(stocked.all_digests())
    for digest in (digests[0], digests[-1]):
        flip_bit(blob_path(stocked.path, digest))
    monkeypatch.setattr(verify_work, "_BATCH_JOBS", 1)
    seen = []
    real = Run._note

    async def interrupt(self: Run, verdict: Verdict, index: IndexInspection | None) -> None:
        await real(self, verdict, index)
        seen.append(verdict.job.digest)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_note", interrupt)
        broken = tool("--quick")
    assert broken.exit_code == 130
    assert "--resume" in broken.stderr
    state = verify_state.load(stocked.path)
    assert state is not None
    assert (state.after, state.checked_count, state.is_quick) == (digests[4], 5, True)
    found = document(tool("--resume", "--json"))
    assert (found["checked_count"], found["is_quick"]) == (len(digests), True)
    wrong = found["findings"]
    assert isinstance(wrong, list)
    assert [each["digest"] for each in wrong] == [digests[0], digests[-1]]
    assert verify_state.load(stocked.path) is None
    assert seen == digests[:5]


def test_resuming_chooses_nothing_anew(tool: Tool, stocked: Stock) -> None:
    verify_state.save(stocked.path, State(None, False, 1.0, 0, 0.0))
    assert tool("--resume", "--quick").exit_code == 2
    (stocked.path / verify_state.NAME).write_text("{")
    refused = tool("--resume")
    assert refused.exit_code == 1
    assert "cannot read" in refused.stderr


def test_state_is_saved_while_a_run_goes_on(
    stocked: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.verify_run.SAVE_INTERVAL_S", 0.0)
    state = State(None, False, 1.0, 0, 0.0)
    run = Run(Layout(stocked.path), state, None, lambda finding: None, is_quarantining=False)
    asyncio.run(run.verify(lambda count: None))
    saved = verify_state.load(stocked.path)
    assert saved is not None
    assert saved.after == state.after == max(stocked.all_digests())


async def one_job(job: Job) -> AsyncIterator[Job]:
    yield job


def test_what_is_evicted_meanwhile_is_no_finding(stocked: Stock) -> None:
    """The jobs are listed, then a server evicts, and the files are gone when they are read."""
    layer = stocked.images["docker.io/library/busybox:1.35"].layers[1]
    state, told = State(None, False, 1.0, 0, 0.0), list[Finding]()
    layout = Layout(stocked.path)
    run = Run(layout, state, None, told.append, is_quarantining=True)

    async def verify() -> None:
        async with ReadOnlyConnections(layout.index_path) as connections:
            index = IndexInspection(connections)
            jobs = iter_jobs(
                index,
                BlobDirectory(layout),
                Choice(digests=frozenset([layer])),
                is_quick=True,
            )
            (job,) = [job async for job in jobs]
            async with Upstreams().cache(stocked.path, maxsize_bytes=1) as cache:
                await cache.evictor.evict_once()
            with Pool(BlobDirectory(layout), lambda count: None, 1) as pool:
                (verdict,) = [each async for each in pool.iter_verdicts(one_job(job))]
            assert verdict.fault is Fault.MISSING
            await run._note(verdict, index)

    asyncio.run(verify())
    assert (told, state.gone_count, state.checked_count) == ([], 1, 0)


def test_a_file_that_was_replaced_while_it_was_read_is_read_again(
    stocked: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = digest_of(BASE)
    path = blob_path(stocked.path, digest)
    flip_bit(path)
    real = Check.read

    def read(self: Check, descriptor: int, buffer: bytearray) -> int:
        count = real(self, descriptor, buffer)
        if path.read_bytes() != BASE:
            # Evicted and fetched anew, whole this time.
            path.unlink()
            path.write_bytes(BASE)
        return count

    monkeypatch.setattr(Check, "read", read)
    layout = Layout(stocked.path)

    async def verify() -> list[Verdict]:
        async with ReadOnlyConnections(layout.index_path) as connections:
            choice = Choice(digests=frozenset([digest]))
            jobs = iter_jobs(
                IndexInspection(connections), BlobDirectory(layout), choice, is_quick=False
            )
            with Pool(BlobDirectory(layout), lambda count: None, 1) as pool:
                return [verdict async for verdict in pool.iter_verdicts(jobs)]

    (verdict,) = asyncio.run(verify())
    assert verdict.fault is None


def test_verdicts_come_in_the_order_of_the_jobs_whatever_the_threads_do(stocked: Stock) -> None:
    layout = Layout(stocked.path)
    progressed: list[int] = []
    lock = threading.Lock()

    def progress(count: int) -> None:
        with lock:
            progressed.append(count)

    async def verify() -> list[Digest]:
        jobs = iter_jobs(None, BlobDirectory(layout), Choice(), is_quick=False)
        with Pool(BlobDirectory(layout), progress, 4) as pool:
            return [verdict.job.digest async for verdict in pool.iter_verdicts(jobs)]

    assert asyncio.run(verify()) == sorted(stocked.all_digests())
    assert sum(progressed) == sum(
        blob_path(stocked.path, digest).stat().st_size for digest in stocked.all_digests()
    )


def test_an_unreadable_disk_counts_as_damage_and_a_forbidden_file_does_not(
    tool: Tool, stocked: Stock, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = stocked.images["docker.io/library/busybox:1.35"]
    bad = blob_path(stocked.path, image.layers[1]).stat().st_ino
    forbidden = image.config
    real_preadv, real_open = os.preadv, BlobDirectory.open_blob

    def preadv(fd: int, buffers: list[memoryview], offset: int) -> int:
        if os.fstat(fd).st_ino == bad:
            raise OSError(5, "Input/output error")
        return real_preadv(fd, buffers, offset)

    def open_blob(self: BlobDirectory, digest: Digest) -> int:
        if digest == forbidden:
            raise PermissionError(13, "Permission denied")
        return real_open(self, digest)

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(BlobDirectory, "open_blob", open_blob)
    found = findings(tool("--quarantine"))
    assert found[image.layers[1]][0] == "damaged"
    assert found[forbidden][0] == "unreadable"
    assert kept_in_quarantine(stocked.path) == [f"sha256-{image.layers[1].hex}"]
