"""Results of validations, from nodes' vLLMs to the api container, whatever happens to that in a validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from dapi.relay import forwarder
from dapi.relay.answers import Meaning
from dapi.simulator.vllm.results import ValidationJob
from dapi.simulator.vllm.sender import SimulatedVllm
from tests.integration.relay.host import MODEL, QUICK, Host, P, hosting, reactor
from tests.integration.waiting import soon, until

JOBS = 12


class Validation:
    """A host in a validation, and two vLLMs that validate; ``answered`` are the bodies that dapi answered with 200."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.answered: list[bytes] = []
        self._vllms = [
            SimulatedVllm(
                reactor,
                host.base,
                node_num=number,
                node_count=3,
                model=MODEL,
                settings=QUICK,
                on_result=self.answered.append,
                random=Random(number),
            )
            for number in (1, 2)
        ]
        host.senders += self._vllms
        assert host.api.stage is not None
        host.api.see_block(host.api.stage.validation_start)

    async def validate(self) -> None:
        """Have each vLLM make some results, and wait until dapi has answered all of them."""
        wanted = len(self.answered) + JOBS * len(self._vllms)
        for vllm in self._vllms:
            for number in range(JOBS):
                vllm.validate(ValidationJob(height=P, public_key=f"03{number:064x}"))
        await until(lambda: len(self.answered) == wanted)

    def refused(self, status: int) -> Counter[bytes]:
        """How often each body was refused so."""
        return Counter(post.digest for post in self.host.api.posts if post.status == status)

    async def each_reaches_the_container_once(self) -> None:
        """Wait until all have arrived; each was taken once, byte for byte, and dapi has nothing left to send."""
        api = self.host.api
        await until(lambda: api.votes.total() >= len(self.answered))
        await until(lambda: not self.host.files())
        taken = Counter(post.digest for post in api.posts if post.status == 200)
        assert taken == Counter(hashlib.sha256(body).digest() for body in self.answered)
        assert set(api.votes.values()) == {1}
        assert {vote.model for vote in api.votes} == {MODEL}
        assert self.host.relay.status()["set_aside"] == []


@pytest_twisted.async_yield_fixture
async def validation(tmp_path: Path) -> AsyncIterator[Validation]:
    async with hosting(tmp_path) as host:
        yield Validation(host)


async def refuse_with_503(validation: Validation) -> None:
    """In other words than those of a closed window, and more often than a result may be answered with 500."""
    faults = validation.host.api.faults
    faults.status, faults.text = 503, "no room"
    await validation.validate()
    await until(lambda: max(validation.refused(503).values(), default=0) > 5)
    faults.status = None


async def refuse_with_500(validation: Validation) -> None:
    """What it cannot hand over to be sent to the chain."""
    validation.host.api.faults.hand_over_fails = True
    await validation.validate()
    await until(lambda: len(validation.refused(500)) == len(validation.answered))
    validation.host.api.faults.hand_over_fails = False


async def hang_and_crash(validation: Validation) -> None:
    """Give no answer, until it is killed with what it was asked; then 503, until it has seen a block."""
    host = validation.host
    host.api.faults.hangs = True
    await validation.validate()
    await until(lambda: host.relay.forwarder.queue.under_way > 0)
    crashed = Deferred.fromCoroutine(host.api.crash(0.1))
    host.api.faults.hangs = False
    await soon(crashed)


async def be_away(validation: Validation) -> None:
    """Be dead while results come."""
    await soon(validation.host.api.stopService())
    await validation.validate()
    await until(lambda: validation.host.relay.forwarder.away is not None)
    await validation.host.start_api()


@pytest.mark.parametrize("trouble", [refuse_with_503, refuse_with_500, hang_and_crash, be_away])
@pytest_twisted.ensureDeferred
async def test_each_result_that_was_answered_reaches_the_container_once(
    validation: Validation, trouble: Callable[[Validation], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if trouble is refuse_with_503:
        monkeypatch.setitem(forwarder._LATER_SECONDS, Meaning.AGAIN, 0.1)
    await trouble(validation)
    await validation.each_reaches_the_container_once()


@pytest_twisted.ensureDeferred
async def test_what_was_taken_is_not_sent_again_after_a_restart_of_dapi(validation: Validation) -> None:
    host = validation.host
    await validation.validate()
    await validation.each_reaches_the_container_once()
    await host.stop()
    await host.start()
    await validation.validate()
    await validation.each_reaches_the_container_once()
