"""A process that writes to the index at its argument until it is killed.

Prints a manifest's number once its commit was confirmed.
"""

import asyncio
import itertools
import sys
from pathlib import Path

from engine.descriptor import Descriptor
from engine.index import Index
from tests.component.index_examples import HERE, blob_of, digest_of, manifest_link_of, tag_of

LAYER_COUNT = 5
WRITER_COUNT = 8


def layers_of(number: int) -> list[Descriptor]:
    """What manifest `number` names."""
    # Negative, so that no layer is ever a manifest too.
    last = -number * LAYER_COUNT
    return [
        Descriptor(digest_of(layer), 1, "", is_manifest=False)
        for layer in range(last, last + LAYER_COUNT)
    ]


async def write_for_ever(index: Index, numbers: "itertools.count[int]") -> None:
    for number in numbers:
        await index.commit_manifest(
            HERE,
            blob_of(number),
            manifest_link_of(number),
            layers_of(number),
            tag_of(number, f"t{number}"),
        )
        print(number, flush=True)  # noqa: T201 - the parent reads it


async def main(path: Path) -> None:
    index = await Index.open(path)
    numbers = itertools.count(1)
    await asyncio.gather(*(write_for_ever(index, numbers) for _ in range(WRITER_COUNT)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
