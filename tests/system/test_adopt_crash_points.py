"""An adoption that is killed at any disk call leaves a sound cache, and the next one goes on."""

import asyncio
import shutil
import signal
from pathlib import Path

import pytest

from engine.adoption_intake import Mode
from engine.audit import Audit
from engine.blobdir import BlobDirectory
from engine.cache import Cache
from engine.errors import NotFound
from engine.index_inspection import IndexInspection
from engine.index_readonly import ReadOnlyConnections
from engine.layout import Layout
from engine.names import Digest
from tests.component.adopting import image_of, storage_of
from tests.fakes.caches import BUSYBOX
from tests.fakes.crashing_adoption import adopt_all, adopt_until
from tests.fakes.damage import iter_blob_files
from tests.fakes.images import Image
from tests.fakes.registry_storage import digests_of
from tests.fakes.stocked import Upstreams

pytestmark = pytest.mark.system

_CALLS = 200  # more than it makes


async def is_stored(cache: Cache, digest: Digest) -> bool:
    try:
        return (await cache.get_blob(BUSYBOX, digest)).content is not None
    except NotFound:
        return False


async def serves_all(path: Path, image: Image) -> bool:
    """Whether everything is served with the upstream gone; what is here is sound either way."""
    async with Upstreams().cache(path) as cache:
        has_all = all([await is_stored(cache, Digest(digest)) for digest in digests_of(image)])
    async with ReadOnlyConnections(Layout(path).index_path) as connections:
        audit = Audit(IndexInspection(connections), BlobDirectory(Layout(path)))
        assert await audit.run() == []
    return has_all


@pytest.mark.parametrize(("mode", "step"), [(Mode.COPY, 1), (Mode.HARDLINK, 3)])
def test_killed_at_any_disk_call_the_next_one_goes_on(
    tmp_path: Path, mode: Mode, step: int
) -> None:
    image = image_of(BUSYBOX.repository, b"one" * 2000)
    registry = storage_of(tmp_path / "registry", image)
    before = registry.snapshot()
    for number in range(1, _CALLS, step):
        data = tmp_path / str(number)
        status = adopt_until(registry.directory, data, mode, number)
        if number % 2:  # the mirror may have been started in between
            asyncio.run(serves_all(data, image))
        asyncio.run(adopt_all(registry.directory, data, mode))
        assert asyncio.run(serves_all(data, image))
        assert len(list(iter_blob_files(data))) == len(digests_of(image))
        assert list((data / "partial").iterdir()) == []
        shutil.rmtree(data)
        if status == 0:
            break
        assert status == signal.SIGKILL
    else:
        pytest.fail("the adoption never came to its end")
    assert registry.snapshot() == before
