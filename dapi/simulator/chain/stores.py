"""What the chain keeps, at every height: mappings that remember what they held."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_ABSENT: Any = object()


class Store(MutableMapping[K, V], Generic[K, V]):
    """A mapping of the chain's state.

    Reading and writing are about the present, the height that ``height()`` gives. ``at(height)`` is what the store held
    once the block at that height was done.
    """

    def __init__(self, height: Callable[[], int]) -> None:
        self._height = height
        self._present: dict[K, V] = {}
        # For each key the heights at which it changed, ascending, and the value that each of them left.
        self._heights: dict[K, list[int]] = {}
        self._values: dict[K, list[V]] = {}

    def __getitem__(self, key: K) -> V:
        return self._present[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._present)

    def __len__(self) -> int:
        return len(self._present)

    def __setitem__(self, key: K, value: V) -> None:
        self._present[key] = value
        self._remember(key, value)

    def __delitem__(self, key: K) -> None:
        del self._present[key]
        self._remember(key, _ABSENT)

    def at(self, height: int) -> Mapping[K, V]:
        """Return what the store held once the block at ``height`` was done."""
        return self if height >= self._height() else _Past(self, height)

    def value_at(self, key: K, height: int) -> V:
        """Return a key's value once the block at ``height`` was done; KeyError when it had none."""
        position = bisect_right(self._heights.get(key, []), height)
        if position == 0 or self._values[key][position - 1] is _ABSENT:
            raise KeyError(key)
        return self._values[key][position - 1]

    def all_keys(self) -> Iterator[K]:
        """Return every key that the store ever had."""
        return iter(self._heights)

    def _remember(self, key: K, value: V) -> None:
        heights, values = self._heights.setdefault(key, []), self._values.setdefault(key, [])
        if heights and heights[-1] == self._height():
            values[-1] = value
        else:
            heights.append(self._height())
            values.append(value)


class _Past(Mapping[K, V]):
    """A store as it was."""

    def __init__(self, store: Store[K, V], height: int) -> None:
        self._store = store
        self._height = height

    def __getitem__(self, key: K) -> V:
        return self._store.value_at(key, self._height)

    def __iter__(self) -> Iterator[K]:
        return (key for key in self._store.all_keys() if key in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Writes:
    """What a transaction has written so far, so that it can be undone."""

    def __init__(self) -> None:
        self._before: list[tuple[MutableMapping[Any, Any], Any, Any]] = []

    def put(self, store: MutableMapping[K, V], key: K, value: V) -> None:
        """Set a value."""
        self._before.append((store, key, store.get(key, _ABSENT)))
        store[key] = value

    def remove(self, store: MutableMapping[K, V], key: K) -> None:
        """Remove a key that is there."""
        self._before.append((store, key, store[key]))
        del store[key]

    def undo(self) -> None:
        """Restore what was there before."""
        for store, key, value in reversed(self._before):
            if value is _ABSENT:
                del store[key]
            else:
                store[key] = value
