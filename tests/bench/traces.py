"""Synthetic pulls of a CI fleet, seeded: the same seed gives the same trace.

Every trace has base images of very different popularity (Zipf) that share layers, some of which get
a new version each day while others rise and fall (a shifting working set). What differs is what CI
builds on top: nothing, images that are pulled once, or images that all jobs of one pipeline pull
within minutes and nobody ever again.
"""

import bisect
import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

DAY_S = 86_400.0
_REPOSITORIES = 600
_BASES = 40
_ZIPF_EXPONENT = 0.9
_BUILT_SHARE = 0.35  # of all pulls: what CI has just built
_CHANGED_SHARE = 0.05  # of all repositories, each day
_JOB_PAUSE_S = 180.0  # between the jobs of a pipeline, on average
# A layer is 6 MB in the median; one in a hundred is larger than 600 MB.
_LAYER_MEDIAN_BYTES = 6e6
_LAYER_SIGMA = 2.0
_LAYER_RANGE_BYTES = (300.0, 10e9)


@dataclass(frozen=True, slots=True)
class Blob:
    """Something that is pulled."""

    number: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Image:
    """A manifest, a config and layers, in the order in which they are pulled."""

    blobs: tuple[Blob, ...]
    layers: tuple[Blob, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of trace. `jobs`: how many pull what CI built, on average; 0 = it builds nothing."""

    name: str
    jobs: float
    days: int = 3
    pulls_a_day: int = 7_500


SHAPES = (Shape("base images", 0), Shape("and one-offs", 1), Shape("and pipelines", 3.3))


@dataclass(frozen=True, slots=True)
class Request:
    """One blob asked for. `at`: seconds since the trace began."""

    at: float
    blob: Blob


def make_trace(shape: Shape, seed: int) -> list[Request]:
    """Make a trace in order of time."""
    fleet = _Fleet(random.Random(seed))
    pulls = (pull for day in range(shape.days) for pull in fleet.iter_day(day, shape))
    # Pulls come in order but for the jobs of a pipeline, which follow within hours.
    requests = [
        (at + 0.3 * number, blob.number, blob)
        for at, image in pulls
        for number, blob in enumerate(image.blobs)
    ]
    heapq.heapify(requests)
    ordered = (heapq.heappop(requests) for _ in range(len(requests)))
    return [Request(at, blob) for at, _, blob in ordered]


class _Fleet:
    """The repositories, and what is pulled of them."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._blob_count = 0
        self._bases = [self._make_image((), dice.randint(2, 5)) for _ in range(_BASES)]
        self._images = [self._make_on_base() for _ in range(_REPOSITORIES)]
        weights = [1 / (rank + 1) ** _ZIPF_EXPONENT for rank in range(_REPOSITORIES)]
        self._cumulated = list(accumulate(weights))

    def iter_day(self, day: int, shape: Shape) -> Iterator[tuple[float, Image]]:
        """Iterate over a day's pulls."""
        self._shift()
        for _ in range(shape.pulls_a_day):
            at = (day + self._dice.random()) * DAY_S
            if not shape.jobs or self._dice.random() >= _BUILT_SHARE:
                yield at, self._choose()
                continue
            built = self._make_image(self._choose().layers, self._dice.randint(1, 3))
            yield at, built
            while self._dice.random() < 1 - 1 / shape.jobs:
                at += self._dice.expovariate(1 / _JOB_PAUSE_S)
                yield at, built

    def _shift(self) -> None:
        for _ in range(int(_REPOSITORIES * _CHANGED_SHARE)):
            self._images[self._dice.randrange(_REPOSITORIES)] = self._make_on_base()
            one, other = (self._dice.randrange(_REPOSITORIES) for _ in range(2))
            self._images[one], self._images[other] = self._images[other], self._images[one]

    def _choose(self) -> Image:
        point = self._dice.random() * self._cumulated[-1]
        return self._images[bisect.bisect(self._cumulated, point)]

    def _make_on_base(self) -> Image:
        return self._make_image(self._dice.choice(self._bases).layers, self._dice.randint(1, 4))

    def _make_image(self, below: tuple[Blob, ...], layer_count: int) -> Image:
        layers = (*below, *(self._make_layer() for _ in range(layer_count)))
        manifest = self._make_blob(self._dice.uniform(500, 6_000))
        config = self._make_blob(self._dice.uniform(1_000, 20_000))
        return Image((manifest, config, *layers), layers)

    def _make_layer(self) -> Blob:
        size_bytes = self._dice.lognormvariate(math.log(_LAYER_MEDIAN_BYTES), _LAYER_SIGMA)
        low, high = _LAYER_RANGE_BYTES
        return self._make_blob(min(high, max(low, size_bytes)))

    def _make_blob(self, size_bytes: float) -> Blob:
        self._blob_count += 1
        return Blob(self._blob_count, int(size_bytes))
