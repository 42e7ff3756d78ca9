"""What is large goes back to the system: looked at from outside, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

# 31 MiB are freed first, so that glibc would keep blocks of that size. Then one of 8 MiB grows behind each of others.
_CODE = """
import ctypes
from dapi.service.memory import save_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20

if {given_back}:
    assert save_memory()
allocate, free = ctypes.CDLL(None).malloc, ctypes.CDLL(None).free
allocate.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def block(size):
    at = allocate(size)
    ctypes.memset(at, 1, size)
    return at

free(block(31 * 2**20))
large, small = [], []
for _ in range(8):
    large.append(block(8 * 2**20))
    small.append(block(300_000))
before = resident()
for each in large:
    free(each)
print(before - resident())
"""

# Threads that are all there at once, each with memory of its own; then glibc tells of its arenas.
_THREADS = """
import ctypes, threading
from dapi.service.memory import save_memory

assert save_memory()
libc = ctypes.CDLL(None)
all_there = threading.Barrier({number})

def work():
    libc.malloc(100_000)
    all_there.wait()

threads = [threading.Thread(target=work) for _ in range({number})]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def _given_back(given_back: bool) -> int:
    """Return how many of 64 MiB went back."""
    code = _CODE.format(given_back=given_back)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)


@skipUnless(sys.platform == "linux", "looks into /proc, and asks glibc")
class MemoryTests(SynchronousTestCase):
    def test_large_blocks_go_back(self) -> None:
        self.assertGreater(_given_back(True), 60)

    def test_threads_share_an_arena(self) -> None:
        code = _THREADS.format(number=12)
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
        self.assertEqual(told.count("<heap nr="), 1)
