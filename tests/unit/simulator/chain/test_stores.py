"""Stores remember what they held at each height."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from dapi.simulator.chain.stores import Store, Writes

changes = st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abc"), st.integers(0, 9) | st.none()), max_size=20)


class StoreTests(SynchronousTestCase):
    @given(changes)
    def test_each_height_is_as_it_was(self, steps: list[tuple[int, str, int | None]]) -> None:
        height = 0
        store: Store[str, int] = Store(lambda: height)
        plain: dict[str, int] = {}
        seen: dict[int, dict[str, int]] = {}
        for blocks, key, value in steps:
            height += blocks
            if value is not None:
                store[key] = plain[key] = value
            elif key in store:
                del store[key], plain[key]
            seen[height] = dict(plain)
        self.assertEqual(store, plain)
        for past, held in seen.items():
            self.assertEqual(dict(store.at(past)), held)
            self.assertEqual(len(store.at(past)), len(held))
        self.assertEqual(dict(store.at(-1)), {})

    def test_what_a_transaction_wrote_is_undone(self) -> None:
        store: Store[str, int] = Store(lambda: 1)
        store.update(a=1, b=2)
        writes = Writes()
        writes.put(store, "a", 5)
        writes.put(store, "a", 6)
        writes.put(store, "c", 7)
        writes.remove(store, "b")
        self.assertEqual(store, {"a": 6, "c": 7})
        writes.undo()
        self.assertEqual(store, {"a": 1, "b": 2})
        self.assertEqual(dict(store.at(1)), {"a": 1, "b": 2})
