"""How many callbacks of 0.3 MB dapi's relay takes in a second, beside a plain proxy: ``python -m bench.relay_nginx``.

All stand before the same container, which answers 200 at once. nginx (``proxy_pass``, one worker) only hands on, and so
does Twisted's own port forwarder, which reads nothing of what it carries: no proxy on Twisted can do less. dapi brings
each body to the disk, with fsync, before its 200. The senders are a process of their own, with 16 connections that are
kept. Runs alternate, and the medians are compared.

The ratio of the rates is what a quiet machine shows; on a busy one it is too good, for dapi has several threads. So it
is told by computing, too: all CPU time that a request takes, that of senders and container included, with nginx over
that with dapi, which is the ratio of the rates where the processors are what bounds both. Where nginx is not installed
it says so, and exits with 0; when that ratio is below what dapi has reached already, the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.comparison import spread
from bench.processes import free_port
from bench.results import Section
from dapi.simulator.api.settings import MODEL, START
from dapi.simulator.vllm.sender import callback_path, generated_body

GOAL_RATIO = 0.5
# Of the ratio by computing, which was 0.46 to 0.58. The goal, which is of the rates, is only told when it is missed.
FLOOR_RATIO = 0.4
ROUNDS = 3
SECONDS = 4.0
CONNECTIONS = 16
ARTIFACTS = 4_500

_NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_max_body_size 256m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream container {{ server 127.0.0.1:{target}; keepalive 16; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://container;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }}
  }}
}}
"""


def load(url: str, seconds: float) -> None:
    """Post different bodies over connections that are kept; print how many were answered with 200 in a second."""
    import http.client
    import threading
    import urllib.parse

    parts = urllib.parse.urlsplit(url)
    step = CONNECTIONS + 1
    done = [0] * CONNECTIONS
    # The making of a body takes longer than the sending: one for each connection, with another block hash each time.
    templates = []
    for number in range(1, CONNECTIONS + 1):
        body = generated_body(START, number, list(range(number, number + ARTIFACTS * step, step)))
        templates.append(body.partition(b"5F5F5F5F"))

    def post(number: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
        before, _, after = templates[number]
        # dapi keeps the same body once: no run may begin where another one did.
        turn = time.time_ns() // 1000 % 2**31
        while time.perf_counter() < stop_at:
            turn += 1
            body = before + b"%08X" % turn + after
            connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            done[number] += answer.status == 200
        connection.close()

    begun, stop_at = time.process_time(), time.perf_counter() + seconds
    threads = [threading.Thread(target=post, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(
        json.dumps({"rate": sum(done) / seconds, "cpu_ms": 1000 * (time.process_time() - begun) / sum(done)}),
        flush=True,
    )


def serve_container() -> None:
    """Run a container that reads each body, answers 200 at once, and prints its port."""
    from twisted.internet import reactor as installed
    from twisted.web.resource import Resource
    from twisted.web.server import Site

    reactor: Any = installed
    epochs = {
        "block_height": START,
        "phase": "PoCGenerate",
        "latest_epoch": {"poc_start_block_height": START},
        "epoch_params": {"poc_stage_duration": 10_000, "poc_validation_duration": 10, "epoch_length": 20_000},
    }
    node = {"node": {"id": "n", "node_num": CONNECTIONS, "host": "127.0.0.1", "models": {MODEL: {}}}, "state": {}}
    told = {b"/v1/epochs/latest": json.dumps(epochs), b"/admin/v1/nodes": json.dumps([node])}
    # As if others had delivered, too, so that nothing is taken for lost.
    told[b"/v1/poc/artifacts/state"] = '{"count": 1000000000}'
    told[b"/metrics"] = "process_start_time_seconds 1.5\n"

    class Container(Resource):
        isLeaf = True

        def render(self, request: Any) -> bytes:
            if request.method == b"POST":
                request.setHeader(b"content-length", b"0")
                return b""
            if request.path not in told:
                request.setResponseCode(404)
            return told.get(request.path, "").encode()

    site: Any = Site(Container())  # type: ignore[no-untyped-call]
    port = reactor.listenTCP(0, site, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


def serve_bare(target: int) -> None:
    """Run Twisted's port forwarder before the container at a port, and print its own."""
    from twisted.internet import reactor as installed
    from twisted.protocols.portforward import ProxyFactory

    reactor: Any = installed
    factory: Any = ProxyFactory("127.0.0.1", target)
    factory.noisy = False
    print(reactor.listenTCP(0, factory, interface="127.0.0.1").getHost().port, flush=True)
    reactor.run()


def cpu_seconds(pid: int) -> float:
    """Return for how long a process and its children have computed."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in (pid, *map(int, children)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Side:
    """One of the proxies; ``turns`` are its rates and the CPU times of its requests, one for each round."""

    def __init__(self, name: str, pid: int, url: str, container: int) -> None:
        self.name = name
        self.rates: list[float] = []
        self.own_ms: list[float] = []
        self.all_ms: list[float] = []
        self._pid = pid
        self._url = url
        self._container = container

    def run(self) -> None:
        """Have it take its turn, and finish what it has taken."""
        before = cpu_seconds(self._pid), cpu_seconds(self._container)
        command = [sys.executable, "-m", "bench.relay_nginx", "--load", self._url]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        # Time for dapi to hand on what it has taken, so that it does not disturb the next run.
        time.sleep(3 if self.name == "dapi" else 0.2)
        requests = told["rate"] * SECONDS
        own, container = (
            1000 * (cpu_seconds(pid) - begun) / requests
            for pid, begun in zip((self._pid, self._container), before, strict=True)
        )
        self.rates.append(told["rate"])
        self.own_ms.append(own)
        self.all_ms.append(own + container + told["cpu_ms"])


def compare(folder: str, program: str) -> int:
    """Run all in turns, and print the medians; return the exit code."""
    section = Section("relay_nginx")
    me = [sys.executable, "-m", "bench.relay_nginx"]
    running: list[subprocess.Popen[Any]] = []

    def start(*command: str) -> tuple[int, int]:
        """Return the process id, and the port that it prints."""
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        return process.pid, int(process.stdout.readline())

    try:
        container, target = start(*me, "--container")
        url = f"http://127.0.0.1:{target}"
        dapi, dapi_port = start(sys.executable, "-m", "bench.relay", "--dapi", folder, url, url, url)
        bare, bare_port = start(*me, "--bare", str(target))
        prefix = Path(f"{folder}/outbox.db-relay.prefix").read_text().strip()
        port = free_port()
        # The workers of an nginx that root starts are another user's.
        Path(folder).chmod(0o711)
        Path(f"{folder}/nginx.conf").write_text(_NGINX.format(folder=folder, target=target, port=port))
        nginx = [program, "-c", f"{folder}/nginx.conf", "-p", folder]
        running.append(subprocess.Popen(nginx, stderr=subprocess.DEVNULL))
        # Time for dapi to learn the stage and the nodes, and for nginx to listen.
        time.sleep(2)
        path = callback_path(MODEL, "generated")
        sides = [
            Side("nginx", running[-1].pid, f"http://127.0.0.1:{port}{path}", container),
            Side("Twisted, no HTTP", bare, f"http://127.0.0.1:{bare_port}{path}", container),
            Side("dapi", dapi, f"http://127.0.0.1:{dapi_port}{prefix}{path}", container),
        ]
        for _ in range(ROUNDS):
            for side in sides:
                side.run()
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
    return report(sides, section)


def report(sides: list[Side], section: Section) -> int:
    """Print the figures, and write them down; return 1 when dapi is slower than it has been."""
    nginx, *_, dapi = sides
    for side in sides:
        rate, own, whole = map(statistics.median, (side.rates, side.own_ms, side.all_ms))
        print(f"{side.name:>20} {rate:>10.1f} requests/s, {own:.2f} ms of its CPU each, {whole:.2f} of all")
    by_rate = statistics.median(dapi.rates) / statistics.median(nginx.rates)
    by_cpu = statistics.median(nginx.all_ms) / statistics.median(dapi.all_ms)
    section.write(
        {
            "sides": {
                side.name: {"rate": spread(side.rates), "own_ms": spread(side.own_ms), "all_ms": spread(side.all_ms)}
                for side in sides
            },
            "ratio": by_rate,
            "by_cpu": by_cpu,
        }
    )
    # On a busy machine the ratio of the rates is too good.
    verdict = "reached" if min(by_rate, by_cpu) >= GOAL_RATIO else "not reached"
    print(f"{'dapi to nginx':>20} {by_rate:>10.2f} (at least {GOAL_RATIO:g} is wanted: {verdict})")
    too_low = by_cpu < FLOOR_RATIO
    print(f"{'by computing':>20} {by_cpu:>10.2f} (at least {FLOOR_RATIO:g}){' TOO LOW' if too_low else ''}")
    return int(too_low)


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_nginx", description=__doc__)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--container", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--bare", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load, SECONDS)
    elif options.container:
        serve_container()
    elif options.bare:
        serve_bare(options.bare)
    elif (program := _program()) is None:
        print("left out: nginx is not installed (Debian's nginx-light)")
    else:
        with tempfile.TemporaryDirectory(prefix="dapi-bench-") as folder:
            raise SystemExit(compare(folder, program))


if __name__ == "__main__":
    main()
