"""The watch asks a container and a chain on real sockets, and says what is wrong with the stage."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from dapi.chain.rpc import ChainRpc
from dapi.config import PocV2Config
from dapi.database import Database
from dapi.relay.api_answers import StageWindow
from dapi.relay.api_client import ApiClient
from dapi.relay.chain_questions import ChainQuestions
from dapi.relay.stage_watch import StageWatch
from dapi.relay.watch import Watch
from dapi.relay.watched_stage import WatchedStage
from dapi.service import DapiService, make_service
from dapi.simulator.api.stages import Stage
from dapi.simulator.chain import queries
from dapi.simulator.chain.chain import SimulatedChain
from tests.integration.relay.host import DURATIONS, MODEL, PATH, Host, P, body_of, hosting, reactor
from tests.integration.service.services import config
from tests.integration.waiting import soon, until

PARTICIPANT = "gonka1participant"


@pytest_twisted.async_yield_fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    async with hosting(tmp_path, is_started=False) as host:
        yield host


class Watched:
    """A watch with its chain and its database."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.api = host.api
        self.chain = SimulatedChain(reactor, random.Random(1), block_seconds=0.2)
        self.chain.startService()
        self.database = Database(reactor, str(folder / "watch.db"), on_broken=pytest.fail, reserve_bytes=2**16)
        self.database.startService()
        self.start()

    def start(self) -> None:
        api = self.api
        client = ApiClient(
            reactor,
            callback_url=api.callback_url,
            public_url=api.public_url,
            admin_url=api.admin_url,
            ca_file=None,
        )
        chain = ChainQuestions(reactor, ChainRpc(reactor, [self.chain.url]), PARTICIPANT)
        self.watch = Watch(reactor, client, self.database, chain=chain, look_seconds=0.05)
        self.watch.startService()

    async def stop(self) -> None:
        await soon(self.watch.stopService())
        await soon(self.database.stopService())
        await soon(self.chain.stopService())

    def kinds(self) -> set[str]:
        return {each["kind"] for each in self.watch.status()["troubles"]}


@pytest_twisted.async_yield_fixture
async def watched(host: Host, tmp_path: Path) -> AsyncIterator[Watched]:
    watched = Watched(host, tmp_path)
    try:
        yield watched
    finally:
        await watched.stop()


@pytest_twisted.ensureDeferred
async def test_stored_and_committed_side_by_side(host: Host, watched: Watched) -> None:
    api, state, watch = host.api, watched.chain.state, watched.watch
    api.statuses = {1: "GENERATING", 2: "GENERATING"}
    api.take_callback(*body())
    await until(lambda: stage(watch).get("stored") == 2)
    assert stage(watch)["committed"] == 0
    state.store_commits[P, PARTICIPANT, MODEL] = 2
    await until(lambda: stage(watch)["committed"] == 2)
    assert watch.status()["troubles"] == []
    # After the end, a commit that has less, no weights, and no vote of ours.
    assert api.stage is not None
    state.store_commits[P, PARTICIPANT, MODEL] = 1
    state.store_commits[P, "gonka1other", MODEL] = 7
    api.see_block(api.stage.validation_end - 5)
    await until(lambda: watched.kinds() == {"tail", "weights", "votes"})
    state.node_weights[P, PARTICIPANT, MODEL] = {"node1": 1}
    state.votes[P, "gonka1other", MODEL] = frozenset({"gonka1other", PARTICIPANT})
    state.votes[P, PARTICIPANT, MODEL] = frozenset({"gonka1other"})
    await until(lambda: watched.kinds() == {"tail"})
    assert (stage(watch)["participants"], stage(watch)["votes"]) == (2, 1)
    # It is told when the container does not answer, and forgotten when it does.
    await soon(api.stopService())
    await until(lambda: "epochs" in watch.status()["questions"])
    await host.start_api()
    await until(lambda: watch.status()["questions"] == {})
    # What it has seen is kept.
    ledger = watch.latest_stages(5)
    await soon(watch.stopService())
    watched.start()
    await until(lambda: [each["votes"] for each in watched.watch.latest_stages(5)] == [1])
    assert watched.watch.latest_stages(5)[0]["stored_at_the_end"] == ledger[0]["stored_at_the_end"] == 2


@pytest_twisted.ensureDeferred
async def test_a_confirmation_poc_and_a_challenge_are_stages_of_their_own(host: Host, watched: Watched) -> None:
    api, watch = host.api, watched.watch
    api.stage, api.height = Stage(P + 5_000, DURATIONS, is_confirmation=True), P + 5_001
    await until(lambda: stage(watch).get("kind") == "confirmation")
    watched.chain.state.challenges["gonka1other"] = (P + 5_001, P + 5_100)
    watched.chain.state.challenges[PARTICIPANT] = (P + 5_002, P + 5_100)
    api.see_block(P + 5_003)
    await until(lambda: (P + 5_002, MODEL) in watch.stages)
    assert stage(watch)["kind"] == "challenge"
    assert (P + 5_001, MODEL) not in watch.stages


@pytest_twisted.ensureDeferred
async def test_a_chain_that_began_anew_is_watched_though_its_heights_are_lower(host: Host, watched: Watched) -> None:
    watch = watched.watch
    await until(lambda: (P, MODEL) in watch.stages)
    for height in range(P + 1, P + 41):
        before = StageWindow(height, height, height + 1, height + 2, height + 3)
        watch.stages[height, MODEL] = StageWatch(WatchedStage.of(before, MODEL), 0)
    del watch.stages[P, MODEL]
    host.api.take_callback(*body())
    await until(lambda: (P, MODEL) in watch.stages and watch.stages[P, MODEL].record.stored == 2)
    assert len(watch.stages) == 40


@pytest_twisted.ensureDeferred
async def test_a_chain_that_knows_no_challenges(host: Host, watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(queries._QUERIES, "/inference.inference.Query/OpenPoCChallenges")
    await until(lambda: watched.watch.status()["height"] == P)
    turns = watched.watch._turns
    await until(lambda: watched.watch._turns > turns + 4)
    assert watched.watch.status()["questions"] == {}


@pytest_twisted.ensureDeferred
async def test_as_a_part_of_a_whole_dapi(host: Host, tmp_path: Path) -> None:
    api = host.api
    watching = PocV2Config(
        watch=True, api_url=api.callback_url, api_public_url=api.public_url, api_admin_url=api.admin_url
    )
    service: DapiService = make_service(config(tmp_path / "outbox.db", poc_v2=watching), reactor)
    service.startService()
    try:
        watch = service._parts.poc_v2_watch
        assert watch is not None
        await until(lambda: watch.status()["height"] == P)
        status: dict[str, Any] = await soon(service.status())
        assert status["poc_v2_watch"]["knows_commits"] is False
        # It watches, and nothing passes through it.
        assert status["relay"] is None
        assert list(api.posts) == []
    finally:
        await soon(service.stopService())


def body() -> tuple[bytes, str, bytes]:
    """Two artifacts, as the container gets them."""
    return PATH.encode(), "application/json", body_of(1, 4)


def stage(watch: Watch) -> dict[str, Any]:
    """What is known of the stage."""
    stages = watch.status()["stages"]
    return stages[0] if stages else {}
