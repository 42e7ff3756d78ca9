"""How the relay bears the callbacks of a large host: ``python -m bench.relay``.

50 senders make 51,000 artifacts a second together (one body of 5,100 artifacts each 5 s, 3.5 MB/s in all), and one of
them posts a body of a million artifacts in between, as after an outage. What is not answered with 200 goes again a
second later, as a node has it. dapi and the api container that it hands them on to are processes of their own. Printed
are the times of the answers, for how long a body lay with dapi before the container had it, the highest resident memory
of dapi, and what is left on its disk once the stage is over; above a limit the exit code is 1. ``--seconds 330`` is as
long as a real stage, ``--stages 10`` has ten of them in a row, and tells of each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater, react
from twisted.internet.utils import getProcessOutput

from bench.processes import folder
from bench.receivers import run_as_twistd_does
from bench.results import Section
from dapi.simulator.api.settings import MODEL, START

SENDERS = 50
ARTIFACTS = 5_100
INTERVAL_SECONDS = 5.0
LARGE_ARTIFACTS = 1_000_000
LIMIT_P99_MS, LIMIT_P99_BESIDE_LARGE_MS, LIMIT_LARGE_SECONDS = 100.0, 500.0, 3.0
LIMIT_FORWARD_SECONDS, LIMIT_MEMORY_MB = 1.0, 300.0
EPOCH_BLOCKS = 200_000
# After the end of the stage, until the disk has its room back.
_END_SECONDS = 30
# What is not counted is sent again after 15 s; one look more.
_SETTLE_SECONDS = 20
AGAIN_SECONDS = 1.0


def stage_height(number: int) -> int:
    """Return the height of the first stage (0), or of one after it."""
    return START + number * EPOCH_BLOCKS


class Container:
    """An api container that remembers when it had each body. ``step`` ends the stage, and the next one begins another.

    What it has of a stage that is over is counted, and forgotten: of an hour it would be too much.
    """

    def __init__(self, reactor: Any) -> None:
        from dapi.simulator.api.api import SimulatedApi

        self.api = SimulatedApi(reactor, nodes=dict.fromkeys(range(1, SENDERS + 1), MODEL))
        self.times: dict[str, float] = {}
        self.stored: list[int] = []
        self._record = self.api.record_post
        setattr(self.api, "record_post", self._record_post)  # noqa: B010
        self._begin(0)

    def _begin(self, number: int) -> None:
        from dapi.simulator.api.stages import Durations, Stage

        height = stage_height(number)
        self.api.stage, self.api.height = Stage(height, Durations(poc_stage_duration=EPOCH_BLOCKS // 2)), height

    def _record_post(self, raw_path: bytes, body: bytes, status: int, headers: Mapping[bytes, Sequence[bytes]]) -> None:
        self._record(raw_path, body, status, headers)
        if status == 200:
            self.times.setdefault(self.api.posts[-1].digest.hex(), time.time())

    def step(self) -> None:
        """End the stage that is open, or begin one."""
        stage = self.api.stage
        assert stage is not None
        if self.api.height <= stage.end:
            self.api.see_block(stage.end + 1)
            self.stored.append(sum(each.count for each in self.api.artifacts.values()))
        else:
            self.api.artifacts.clear()
            self._begin(len(self.stored))


def serve_api() -> None:
    """Run a container that prints its ports, and on its end when it had each body; SIGUSR1 has it step."""
    from twisted.internet import reactor as installed

    reactor: Any = installed
    container = Container(reactor)
    api = container.api
    api.startService()
    print(json.dumps([api.callback_url, api.public_url, api.admin_url]), flush=True)

    def end() -> None:
        print(json.dumps({"times": container.times, "stored": container.stored}), flush=True)

    def listen() -> None:
        signal.signal(signal.SIGUSR1, lambda *_: reactor.callFromThread(container.step))

    reactor.addSystemEventTrigger("before", "shutdown", end)
    reactor.callWhenRunning(listen)
    reactor.run()


def serve_dapi(folder: str, urls: list[str]) -> None:
    """Run a dapi with its relay, which prints its port."""
    from twisted.internet import reactor as installed

    from dapi.config import ApiConfig, Config, PocV2Config, StorageConfig
    from dapi.service import make_service
    from dapi.service.memory import save_memory

    # As twistd has it.
    save_memory()
    reactor: Any = installed
    callback_url, public_url, admin_url = urls
    config = Config(
        api=ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0),
        storage=StorageConfig(path=f"{folder}/outbox.db"),
        poc_v2=PocV2Config(relay=True, api_url=callback_url, api_public_url=public_url, api_admin_url=admin_url),
    )
    service = make_service(config, reactor)
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    print(service.callback_listener.port, flush=True)
    run_as_twistd_does(reactor)


class Load:
    """The senders; ``answers`` are the seconds that each took, by whether the large body was under way."""

    def __init__(self, reactor: Any, base: str) -> None:
        from dapi.http.exchange import Exchanges
        from dapi.simulator.vllm.sender import callback_path

        self.answers: dict[bool, list[float]] = {False: [], True: []}
        self.sent: dict[str, float] = {}
        self.large_seconds = 0.0
        self.failures = 0
        self._reactor = reactor
        self._url = base + callback_path(MODEL, "generated")
        self._exchanges = Exchanges(reactor, None, 10)
        self._is_large_under_way = False

    async def post(self, body: bytes) -> float:
        """Post a body until it is answered with 200; return how long the first answer took."""
        import hashlib

        began, self.sent[hashlib.sha256(body).hexdigest()] = time.perf_counter(), time.time()
        is_taken = await self._is_taken(body)
        seconds = time.perf_counter() - began
        while not is_taken:
            self.failures += 1
            await deferLater(self._reactor, AGAIN_SECONDS)
            is_taken = await self._is_taken(body)
        return seconds

    async def _is_taken(self, body: bytes) -> bool:
        from dapi.http.exchange import NoAnswerError

        try:
            status, _ = await self._exchanges.exchange("POST", self._url, body)
        except NoAnswerError:
            return False
        return status == 200

    async def run_stage(self, number: int, rounds: int, folder: str) -> None:
        """Have all senders post a body each 5 s, and one of them the large one in the middle."""
        from dapi.simulator.vllm.sender import generated_body

        # All that the first sender makes is in it, too, as after an outage in which nothing of it came.
        nonces = list(range(1, 1 + LARGE_ARTIFACTS * (SENDERS + 1), SENDERS + 1))
        Path(f"{folder}/large").write_bytes(generated_body(stage_height(number), 1, nonces))
        senders = [self.run_sender(number, sender, rounds) for sender in range(1, SENDERS + 1)]
        jobs = [*senders, self.run_large(f"{folder}/large", rounds * INTERVAL_SECONDS / 2)]
        await gatherResults([Deferred.fromCoroutine(job) for job in jobs])

    async def run_sender(self, stage: int, number: int, rounds: int) -> None:
        """Post a body each 5 s."""
        await deferLater(self._reactor, INTERVAL_SECONDS * number / SENDERS)
        for turn in range(rounds):
            body = body_of(stage, number, turn)
            began = self._reactor.seconds()
            is_beside_large = self._is_large_under_way
            seconds = await self.post(body)
            self.answers[is_beside_large or self._is_large_under_way].append(seconds)
            await deferLater(self._reactor, max(0.0, began + INTERVAL_SECONDS - self._reactor.seconds()))

    async def run_large(self, path: str, after_seconds: float) -> None:
        """Post the large body once, from a process of its own, so that this one goes on with the others."""
        await deferLater(self._reactor, after_seconds)
        self._is_large_under_way = True
        command = ["-c", _POST_LARGE, self._url, path]
        while True:
            output = await getProcessOutput(sys.executable, command, reactor=self._reactor, errortoo=True)
            status, _, seconds = output.partition(b" ")
            if status == b"200":
                break
            print(f"the large body: {output[-200:]!r}", flush=True)
            self.failures += 1
            await deferLater(self._reactor, AGAIN_SECONDS)
        self.large_seconds = max(self.large_seconds, float(seconds))
        self._is_large_under_way = False


_POST_LARGE = """
import http.client, os, sys, time, urllib.parse
url = urllib.parse.urlsplit(sys.argv[1])
began = time.perf_counter()
connection = http.client.HTTPConnection(url.hostname, url.port)
with open(sys.argv[2], "rb") as body:
    size = str(os.path.getsize(sys.argv[2]))
    connection.request("POST", url.path, body, {"Content-Type": "application/json", "Content-Length": size})
print(connection.getresponse().status, time.perf_counter() - began)
"""


def body_of(stage: int, number: int, turn: int) -> bytes:
    """Return what a sender posts at one of its turns, as fast as can be: its vectors are all the same."""
    step = SENDERS + 1
    first = number + turn * ARTIFACTS * step
    head = b'{"public_key": "%s", "block_hash": "%s", "block_height": %d, "node_id": %d, "artifacts": ['
    artifacts = [
        b'{"nonce": %d, "vector_b64": "ADAANQCyAAAAMgC1ALAALAA0ALQArAAw"}' % nonce
        for nonce in range(first, first + ARTIFACTS * step, step)
    ]
    tail = b'], "encoding": {"dtype": "f16", "k_dim": 12, "endian": "le"}}'
    return head % (b"02" + b"a1" * 32, b"5F" * 32, stage_height(stage), number) + b", ".join(artifacts) + tail


def percentile(values: list[float], part: float) -> float:
    """Return a percentile in milliseconds, 0 without values."""
    return 1000 * sorted(values)[min(len(values) - 1, int(part * len(values)))] if values else 0.0


def memory_mb(pid: int, field: str = "VmHWM") -> float:
    """Return the highest resident memory of a process so far, or (``VmRSS``) that of now."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


async def measure(reactor: Any, rounds: int, stages: int) -> int:
    """Run the load, and print what it took; return the exit code."""
    section = Section("relay")
    command = [sys.executable, "-m", "bench.relay"]
    with folder() as name, contextlib.ExitStack() as stack:
        api = subprocess.Popen([*command, "--api"], stdout=subprocess.PIPE, text=True)
        stack.callback(api.kill)
        assert api.stdout is not None
        urls = json.loads(api.stdout.readline())
        dapi = subprocess.Popen([*command, "--dapi", name, *urls], stdout=subprocess.PIPE, text=True)
        # Without it nothing is written to the folder any more, which then goes.
        stack.callback(dapi.wait)
        stack.callback(dapi.kill)
        assert dapi.stdout is not None
        port = int(dapi.stdout.readline())
        prefix = Path(f"{name}/outbox.db-relay.prefix").read_text().strip()
        load = Load(reactor, f"http://127.0.0.1:{port}{prefix}")
        bodies, left = Path(f"{name}/outbox.db-relay"), 0.0
        for stage in range(stages):
            if stage:
                api.send_signal(signal.SIGUSR1)
                await deferLater(reactor, INTERVAL_SECONDS)
            await load.run_stage(stage, rounds, name)
            await deferLater(reactor, _SETTLE_SECONDS)
            kept = megabytes(bodies)
            api.send_signal(signal.SIGUSR1)
            left_now = await left_after_the_end(reactor, bodies)
            left = max(left, left_now)
            if stages > 1:
                now = memory_mb(dapi.pid, "VmRSS")
                print(
                    f"stage {stage}: memory {now:.0f} MB, on disk {kept:.0f} MB, after its end {left_now:.0f} MB",
                    flush=True,
                )
        memory = memory_mb(dapi.pid)
        dapi.terminate()
        dapi.wait()
        api.terminate()
        told = json.loads(api.stdout.read())
        api.wait()
    return report(load, told, (memory, left), rounds, section)


def megabytes(bodies: Path) -> float:
    """Return the size of the bodies in a folder, from which they may go meanwhile."""
    sizes = []
    for path in bodies.glob("*.body"):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes) / 1e6


async def left_after_the_end(reactor: Any, bodies: Path) -> float:
    """Wait until no body is left; return how many megabytes there are after 30 s."""
    for _ in range(_END_SECONDS):
        if not any(bodies.glob("*.body")):
            break
        await deferLater(reactor, 1)
    return megabytes(bodies)


def report(load: Load, told: dict[str, Any], taken: tuple[float, float], rounds: int, section: Section) -> int:
    """Print all figures beside their limits; return 1 when one is above.

    ``taken`` is the highest memory of dapi, and what is left on its disk at the end, in megabytes.
    """
    memory, left = taken
    waits = sorted(told["times"][digest] - sent for digest, sent in load.sent.items() if digest in told["times"])
    made = (SENDERS - 1) * ARTIFACTS * rounds + max(ARTIFACTS * rounds, LARGE_ARTIFACTS)
    missed = [made - stored for stored in told["stored"]]
    if len(missed) > 1:
        print(f"missed by the container, by stage: {', '.join(map(str, missed))}")
    figures = (
        ("answer, p99, ms", percentile(load.answers[False], 0.99), LIMIT_P99_MS),
        ("answer, p99 beside the large body, ms", percentile(load.answers[True], 0.99), LIMIT_P99_BESIDE_LARGE_MS),
        ("answer of the large body, s", load.large_seconds, LIMIT_LARGE_SECONDS),
        ("from post to the container, median, s", waits[len(waits) // 2] if waits else 99.0, LIMIT_FORWARD_SECONDS),
        ("memory of dapi at most, MB", memory, LIMIT_MEMORY_MB),
        ("bodies on disk after the stage, MB", left, 0),
        ("artifacts that the container misses", sum(missed), 0),
        ("answers that were no 200", load.failures, 0),
    )
    section.write({name: {"measured": value, "limit": limit} for name, value, limit in figures})
    for name, value, limit in figures:
        print(f"{name:>40} {value:>10.2f}  (at most {limit:g}){' TOO HIGH' if value > limit else ''}")
    return int(any(value > limit for _, value, limit in figures))


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--seconds", type=int, default=20, help="how long the senders send (default: 20)")
    parser.add_argument("--stages", type=int, default=1, help="how many such stages in a row (default: 1)")
    parser.add_argument("--api", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--dapi", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.api:
        serve_api()
    elif options.dapi:
        serve_dapi(options.dapi[0], options.dapi[1:])
    else:
        rounds = max(1, int(options.seconds / INTERVAL_SECONDS))

        def run(reactor: Any) -> Deferred[None]:
            return Deferred.fromCoroutine(measure(reactor, rounds, options.stages)).addCallback(exit_with)

        def exit_with(code: int) -> None:
            raise SystemExit(code)

        react(run)


if __name__ == "__main__":
    main()
