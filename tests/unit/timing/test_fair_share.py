"""Who takes more than its share of the thread has to pause, and nobody else."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import product

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from dapi.timing import fair_share
from dapi.timing.fair_share import PAUSE_SECONDS, TRANSITIONS, Account, AccountState, FairShare
from dapi.timing.steps import step

OTHERS = 9


class FairShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.used = 0.0
        self.share = FairShare(self.clock, lambda: self.used)
        self.heard: list[tuple[Hashable, bool]] = []
        self.others = [self.join(number) for number in range(OTHERS)]
        self.greedy = self.join("greedy")

    def join(self, who: Hashable, *, is_node: bool = True) -> Account:
        account = self.share.of_node(who) if is_node else self.share.of_stranger(str(who))
        account.join(lambda: self.heard.append((who, account.is_paused)))
        return account

    def others_work(self, seconds: float = 0.0) -> None:
        """Let time go by in which each of the others is active, and takes next to nothing."""
        for _ in range(max(1, round(seconds / 0.125))):
            for other in self.others:
                other.charge(1e-5)
            self.clock.advance(0.125 if seconds else 0)

    def seconds_of_pause(self) -> float:
        begun_at = self.clock.seconds()
        while self.greedy.is_paused:
            self.others_work(0.125)
        return self.clock.seconds() - begun_at

    def test_every_way_that_is_drawn(self) -> None:
        self.others_work(0.5)
        self.assertIs(self.greedy.state, AccountState.FREE)
        self.greedy.charge(1.0)
        self.assertIs(self.greedy.state, AccountState.PAUSED)
        self.seconds_of_pause()
        self.assertIs(self.greedy.state, AccountState.FREE)
        self.assertEqual(self.heard, [("greedy", True), ("greedy", False)])

    def test_every_other_way_is_refused(self) -> None:
        for before, after in product(AccountState, AccountState):
            if after not in TRANSITIONS[before]:
                self.assertRaises(RuntimeError, step, TRANSITIONS, before, after)

    def test_who_is_alone_is_never_paused(self) -> None:
        for _ in range(100):
            self.greedy.charge(0.5)
            self.clock.advance(0.5)
        self.assertEqual(self.heard, [])

    def test_who_was_active_two_seconds_ago_waits_no_more(self) -> None:
        self.others_work(0.5)
        self.clock.advance(2.5)
        self.greedy.charge(1.0)
        self.assertEqual(self.heard, [])

    def test_a_pause_is_as_long_as_the_share_needs(self) -> None:
        """Ten nodes: a twentieth of the thread each. 12 steps of 4 ms are 48 ms, which take a second."""
        self.others_work(0.5)
        self.greedy.charge(0.0)
        self.others_work(0.5)
        for _ in range(12):
            self.greedy.charge(0.004)
        self.assertTrue(0.7 < self.seconds_of_pause() < 1.3)

    def test_a_long_step_counts_as_more_than_it_takes(self) -> None:
        """30 ms are six times 5 ms, and count as 180 ms."""
        self.others_work(0.5)
        self.greedy.charge(0.0)
        self.others_work(0.5)
        self.greedy.charge(0.03)
        self.assertTrue(3.3 < self.seconds_of_pause() < 4.1)

    def test_no_pause_is_longer_than_a_request_has_patience(self) -> None:
        self.others_work(0.5)
        self.greedy.charge(30.0)
        self.assertTrue(PAUSE_SECONDS - 0.5 < self.seconds_of_pause() < PAUSE_SECONDS + 0.5)

    def test_a_pause_ends_when_nobody_else_is_there_any_more(self) -> None:
        self.others_work(0.5)
        self.greedy.charge(30.0)
        self.clock.pump([0.25] * 11)
        self.assertFalse(self.greedy.is_paused)

    def test_a_node_that_keeps_to_its_share_is_never_paused(self) -> None:
        """Ten nodes that take 4 ms of each 100 are 40 % of the thread."""
        for _ in range(100):
            for account in (self.greedy, *self.others):
                account.charge(0.004)
            self.clock.advance(0.1)
        self.assertEqual(self.heard, [])

    def test_however_many_nodes_there_are_the_strongest_of_the_network_is_read_when_it_sends(self) -> None:
        """300,000 nonces take 20 ms."""
        self.others += [self.join(number) for number in range(OTHERS, 300)]
        for _ in range(20):
            self.others_work(5)
            self.assertFalse(self.greedy.is_paused)
            self.greedy.charge(0.02)

    def test_never_are_all_paused(self) -> None:
        for _ in range(50):
            for account in (self.greedy, *self.others):
                if not account.is_paused:
                    account.charge(0.2)
            self.assertLess(sum(account.is_paused for account in (self.greedy, *self.others)), OTHERS + 1)
            self.clock.advance(0.125)
        self.assertTrue(self.heard)

    def test_strangers_share_the_share_of_one_node(self) -> None:
        strangers = [self.join(f"10.0.0.{number}", is_node=False) for number in range(5)]
        self.others_work(0.5)
        for stranger in strangers:
            stranger.charge(0.001)
        self.others_work(0.5)
        self.assertAlmostEqual(self.share.rate_of(self.others[0]), 0.5 / (OTHERS + 1))
        self.assertAlmostEqual(self.share.rate_of(strangers[0]), 0.5 / (OTHERS + 1) / 5)

    def test_all_connections_of_a_user_hear_of_it(self) -> None:
        again: list[bool] = []
        same = self.share.of_node("greedy")
        self.assertIs(same, self.greedy)
        same.join(lambda: again.append(same.is_paused))
        self.others_work(0.5)
        self.greedy.charge(1.0)
        self.assertEqual(again, [True])

    def test_who_comes_back_in_a_pause_is_paused(self) -> None:
        heard: list[bool] = []
        account = self.share.of_node("again")

        def hear() -> None:
            heard.append(account.is_paused)

        account.join(hear)
        self.others_work(0.5)
        account.charge(0.1)
        account.leave(hear)
        account.join(hear)
        self.assertTrue(self.share.of_node("again").is_paused)
        self.others_work(PAUSE_SECONDS + 1)
        self.assertEqual(heard, [True, False])

    def test_who_leaves_in_a_pause_takes_no_share_of_those_who_stay(self) -> None:
        self.others_work(3)
        before = self.share.rate_of(self.greedy), self.share.paused
        for number in range(20):
            account = self.share.of_stranger(f"10.0.0.{number}")
            account.join(self.heard.clear)
            account.charge(1.0)
            account.leave(self.heard.clear)
        self.others_work(3)
        self.assertEqual((self.share.rate_of(self.greedy), self.share.paused), before)

    def test_what_is_charged_when_the_connection_is_gone_is_paused_for_by_the_next_one(self) -> None:
        gone = self.share.of_node("gone")
        self.others_work(0.5)
        gone.charge(1.0)
        self.assertEqual((gone.state, self.clock.getDelayedCalls()), (AccountState.FREE, []))
        gone.join(self.heard.clear)
        self.assertIs(gone.state, AccountState.PAUSED)
        self.others_work(PAUSE_SECONDS)
        self.assertIs(gone.state, AccountState.FREE)

    def test_whoever_left_leaves_no_delayed_call(self) -> None:
        account = self.share.of_stranger("10.0.0.1")

        def hear() -> None: ...

        account.join(hear)
        self.others_work(0.5)
        account.charge(1.0)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        account.leave(hear)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_accounts_without_connections_are_bounded(self) -> None:
        self.patch(fair_share, "_MAX_REMEMBERED", 100)
        for number in range(1000):
            self.share.of_stranger(f"10.0.{number // 256}.{number % 256}")
        self.assertLessEqual(len(self.share._accounts), 100 + OTHERS + 1)
        # Those that have connections are never forgotten.
        self.assertIs(self.share.of_node("greedy"), self.greedy)

    def test_those_of_thousands_of_nodes_are_not_looked_through(self) -> None:
        self.patch(fair_share, "_MAX_REMEMBERED", 10)
        looked = 0
        has_members = Account.has_members

        def look(account: Account) -> bool:
            nonlocal looked
            looked += 1
            return bool(has_members.__get__(account))

        self.patch(Account, "has_members", property(look))
        hears = [lambda: None for _ in range(500)]
        for _ in range(3):
            accounts = [self.share.of_node(number) for number in range(500)]
            for account, hear in zip(accounts, hears, strict=True):
                account.join(hear)
            for account, hear in zip(accounts, hears, strict=True):
                account.leave(hear)
        self.assertLess(looked, 5 * 3 * 500)

    def test_what_was_forgotten_may_still_leave(self) -> None:
        self.patch(fair_share, "_MAX_REMEMBERED", 1)
        forgotten = self.share.of_node("a")
        self.share.of_node("b")
        self.assertIsNot(self.share.of_node("a"), forgotten)
        forgotten.join(hear := lambda: None)
        forgotten.leave(hear)
        self.assertLessEqual(len(self.share._unused), 1)
        self.share.of_node("c")
        self.assertLessEqual(len(self.share._accounts), 1 + OTHERS + 1)

    def test_a_step_is_charged_by_the_processors_time(self) -> None:
        self.others_work(0.5)
        begun = self.greedy.begin_step()
        self.used += 0.1
        self.greedy.end_step(begun)
        self.assertTrue(self.greedy.is_paused)
