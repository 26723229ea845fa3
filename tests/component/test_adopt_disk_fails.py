"""Whatever our disk refuses, an adoption says so, and the next one goes on from there."""

import errno
from pathlib import Path

import pytest

from tests.component.adopting import adopt, image_of, storage_of
from tests.fakes.damage import iter_blob_files
from tests.fakes.failing_disk import FailingDisk
from tests.fakes.registry_storage import digests_of

_CALLS = 200  # more than it makes


@pytest.mark.parametrize(
    ("code", "is_lasting", "step"),
    [(errno.ENOSPC, True, 2), (errno.EDQUOT, False, 5), (errno.EIO, False, 3)],
)
def test_the_disk_may_fail_at_any_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_lasting: bool, step: int
) -> None:
    image = image_of("library/busy", b"one" * 2000)
    storage = storage_of(tmp_path / "registry", image)
    before = storage.snapshot()
    disk = FailingDisk(monkeypatch, code)
    for number in range(1, _CALLS, step):
        data = tmp_path / str(number)
        disk.arm(number, None if is_lasting else number)
        done = adopt(storage.directory, data, "--mode", "copy")
        failed = list(disk.failed)
        disk.heal()
        if not failed:
            break
        assert done.code == 1, (failed, done.stderr)
        assert "error: " in done.stderr
        again = adopt(storage.directory, data)
        assert again.code == 0, (failed, again.stderr)
        assert len(list(iter_blob_files(data))) == len(digests_of(image))
        assert list((data / "partial").iterdir()) == []
    else:
        pytest.fail("the adoption never came to its end")
    assert storage.snapshot() == before
