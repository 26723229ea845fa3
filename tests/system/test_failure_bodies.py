"""A blob that is damaged on its way is mended, or cut; no client ever completes a wrong one."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from engine.fill import HELD_BACK_BYTES
from engine.names import Digest
from tests.system.failure_bodies import DAMAGES, Damage, End
from tests.system.lab import Lab, message_of, run_lab
from tests.system.raw import Answer, read_answer

pytestmark = pytest.mark.system


@dataclass(frozen=True, slots=True)
class Case:
    """A damage, and the blob that it is done to."""

    damage: Damage
    digest: Digest

    @property
    def path(self) -> str:
        """The blob's."""
        return f"/v2/{self.damage.repository}/blobs/{self.digest}"

    def ask(self, lab: Lab) -> Answer:
        """Get the blob; once there is a head, what was held back goes on."""
        with lab.open(f"{self.path}?ns={self.damage.namespace}") as response:
            if self.damage.end is End.CUT:
                for fault in self.damage.faults:
                    for gate in filter(None, (fault.gate, fault.hold)):
                        gate.open()
            return read_answer(response)


@dataclass(frozen=True, slots=True)
class Done:
    """All damages done at once; the first answers, by name."""

    lab: Lab
    cases: dict[str, Case]
    answers: dict[str, Answer]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    """One mirror for all: it takes as long as a stall does."""
    namespaces = [damage.namespace for damage in DAMAGES]
    with run_lab(tmp_path_factory.mktemp("bodies"), namespaces) as lab:
        cases = {damage.name: prepare(lab, damage) for damage in DAMAGES}
        with ThreadPoolExecutor(len(cases)) as pool:
            answers = pool.map(lambda case: case.ask(lab), cases.values())
            yield Done(lab, cases, dict(zip(cases, answers, strict=True)))


def prepare(lab: Lab, damage: Damage) -> Case:
    """Add the blob; where it is named, let the mirror know the manifest that names it."""
    content = lab.upstream.content
    if damage.is_named:
        image = content.add_image(damage.repository, "1", (damage.data,))
        target = f"/v2/{damage.repository}/manifests/1?ns={damage.namespace}"
        assert lab.ask(target).status == 200
        digest = image.layers[0]
    else:
        digest = content.add_blob(damage.repository, damage.data)
    for fault in damage.faults:
        lab.upstream.fail(fault, kind="blob", repository=damage.repository)
    return Case(damage, digest)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.name)
def test_a_damaged_body_is_mended_or_cut(done: Done, damage: Damage) -> None:
    answer, lab = done.answers[damage.name], done.lab
    match damage.end:
        case End.RIGHT:
            assert (answer.status, answer.is_cut) == (200, False)
            assert answer.body == damage.data
        case End.CUT:
            assert (answer.status, answer.is_cut) == (200, True)
            assert len(answer.body) <= damage.size_bytes - HELD_BACK_BYTES
        case End.REFUSED:
            assert (answer.status, answer.code, answer.is_cut) == (502, "UNAVAILABLE", False)
            assert "retry-after" not in answer.headers
            assert re.search("received|encoded", message_of(answer))
    line = lab.wait_for_access(done.cases[damage.name].path)
    assert bool(line["cause"]) is (damage.end is not End.RIGHT)
    # Nothing of it is kept that is not right; and all of it that is.
    again = done.cases[damage.name].ask(lab)
    assert (again.status, again.body) == (200, damage.data)
    later_count = 0 if damage.end is End.RIGHT else 1
    asked_count = lab.upstream.count(kind="blob", repository=damage.repository)
    assert asked_count == damage.requests_count + later_count
