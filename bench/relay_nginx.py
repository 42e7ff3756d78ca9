"""How many callbacks of 0.3 MB dapi's relay takes in a second, beside a plain proxy: ``python -m bench.relay_nginx``.

Both stand before the same container, which answers 200 at once. nginx (``proxy_pass``, one worker) only hands on; dapi
brings each body to the disk, with fsync, before its 200. The senders are a process of their own, with 16 connections
that are kept. Runs of both alternate, and the medians are compared. Where nginx is not installed it says so, and exits
with 0; below the limit the exit code is 1.
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

LIMIT_RATIO = 0.5
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

    from dapi.simulator.vllm.sender import generated_body

    parts = urllib.parse.urlsplit(url)
    step = CONNECTIONS + 1
    done = [0] * CONNECTIONS
    # The making of a body takes longer than the sending: one for each connection, with another block hash each time.
    templates = []
    for number in range(1, CONNECTIONS + 1):
        body = generated_body(START, number, list(range(number, number + ARTIFACTS * step, step)))
        templates.append(body.partition(b"5F5F5F5F"))
    stop_at = time.perf_counter() + seconds

    def post(number: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80)
        before, _, after = templates[number]
        turn = 0
        while time.perf_counter() < stop_at:
            turn += 1
            body = before + b"%08X" % turn + after
            connection.request("POST", parts.path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            done[number] += answer.status == 200
        connection.close()

    threads = [threading.Thread(target=post, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(sum(done) / seconds, flush=True)


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


def cpu_seconds(pid: int) -> float:
    """Return for how long a process and its children have computed."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    ticks = 0
    for each in (pid, *map(int, children)):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def run_load(url: str) -> float:
    """Return the requests a second of one run."""
    command = [sys.executable, "-m", "bench.relay_nginx", "--load", url]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def compare(folder: str, program: str) -> int:
    """Run both in turns, and print the medians; return the exit code."""
    section = Section("relay_nginx")
    me = [sys.executable, "-m", "bench.relay_nginx"]
    container = subprocess.Popen([*me, "--container"], stdout=subprocess.PIPE, text=True)
    assert container.stdout is not None
    target = int(container.stdout.readline())
    url = f"http://127.0.0.1:{target}"
    serving = [sys.executable, "-m", "bench.relay", "--dapi", folder, url, url, url]
    dapi = subprocess.Popen(serving, stdout=subprocess.PIPE, text=True)
    assert dapi.stdout is not None
    base = f"http://127.0.0.1:{int(dapi.stdout.readline())}"
    base += Path(f"{folder}/outbox.db-relay.prefix").read_text().strip()
    port = free_port()
    # The workers of an nginx that root starts are another user's.
    Path(folder).chmod(0o711)
    Path(f"{folder}/nginx.conf").write_text(_NGINX.format(folder=folder, target=target, port=port))
    nginx = subprocess.Popen([program, "-c", f"{folder}/nginx.conf", "-p", folder], stderr=subprocess.DEVNULL)
    try:
        from dapi.simulator.vllm.sender import callback_path

        path = callback_path(MODEL, "generated")
        # Time for dapi to learn the stage and the nodes, and for nginx to listen.
        time.sleep(2)
        rates: dict[str, list[float]] = {"nginx": [], "dapi": []}
        before = {name: cpu_seconds(pid) for name, pid in (("nginx", nginx.pid), ("dapi", dapi.pid))}
        for _ in range(ROUNDS):
            rates["nginx"].append(run_load(f"http://127.0.0.1:{port}{path}"))
            rates["dapi"].append(run_load(f"{base}{path}"))
            # Time for dapi to hand on what it has taken, so that it does not disturb the next run.
            time.sleep(3)
        spent = {name: cpu_seconds(pid) - before[name] for name, pid in (("nginx", nginx.pid), ("dapi", dapi.pid))}
    finally:
        for process in (nginx, dapi, container):
            process.terminate()
            process.wait()
    for name, each in rates.items():
        text = f"{name}, ms of computing a request"
        print(f"{text:>40} {1000 * spent[name] / (sum(each) * SECONDS):>10.2f}")
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ratio = medians["dapi"] / medians["nginx"]
    section.write({**{f"{name}, requests/s": spread(each) for name, each in rates.items()}, "ratio": ratio})
    print(f"{'nginx, requests a second':>40} {medians['nginx']:>10.1f}")
    print(f"{'dapi, requests a second, with fsync':>40} {medians['dapi']:>10.1f}")
    print(
        f"{'dapi to nginx':>40} {ratio:>10.2f}  (at least {LIMIT_RATIO:g}){' TOO LOW' if ratio < LIMIT_RATIO else ''}"
    )
    return int(ratio < LIMIT_RATIO)


def _program() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")


def main() -> None:
    """Run what the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.relay_nginx", description=__doc__)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    parser.add_argument("--container", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        load(options.load, SECONDS)
    elif options.container:
        serve_container()
    elif (program := _program()) is None:
        print("left out: nginx is not installed (Debian's nginx-light)")
    else:
        with tempfile.TemporaryDirectory(prefix="dapi-bench-") as folder:
            raise SystemExit(compare(folder, program))


if __name__ == "__main__":
    main()
