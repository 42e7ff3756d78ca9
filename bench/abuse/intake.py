"""The whole of dapi, without a chain, for the nodes of the bench: a process of its own.

``python -m bench.abuse.intake FOLDER`` reads the nodes and the settings as one line of JSON; when the WebSockets are
started it prints one, with the callback port and the base of each node. At each further line it says what took longest
since the one before (``watch.py``).
"""

from __future__ import annotations

import gc
import json
import sys
import threading
from typing import Any

from bench.abuse.watch import Watch
from dapi.broker.callback_tokens import CallbackTokens
from dapi.broker.nodes import ModelConfig, NodeConfig
from dapi.config import ApiConfig, Config, StorageConfig, WebSocketConfig
from dapi.service import make_service
from dapi.service.memory import save_memory
from dapi.tap import SWITCH_INTERVAL_SECONDS
from dapi.timing.clock import make_monotonic


def _node(name: str, port: int) -> NodeConfig:
    return NodeConfig(
        id=name,
        host="127.0.0.1",
        inference_port=1,
        poc_port=port,
        poc_segment=f"/{name}",
        models={"model": ModelConfig()},
    )


def _answer_laps(reactor: Any, watch: Watch) -> None:
    for _ in sys.stdin:
        reactor.callFromThread(lambda: print(json.dumps(watch.take()), flush=True))


def main(folder: str) -> None:
    """Run it until the process is killed."""
    from twisted.internet import reactor as global_reactor

    told = json.loads(sys.stdin.readline())
    reactor: Any = global_reactor
    make_monotonic(reactor)
    # What the plugin of twistd does for its process.
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    save_memory()
    path = f"{folder}/outbox.db"
    config = Config(
        api=ApiConfig(ml_server_host="127.0.0.1", ml_server_port=0, admin_server_port=0),
        storage=StorageConfig(path=path),
        websocket=WebSocketConfig(compression=told["compression"]),
        nodes=tuple(_node(name, port) for name, port in told["nodes"].items()),
    )

    def registered() -> None:
        tokens = CallbackTokens(path)
        tokens.startService()
        bases = {}
        for worker in service.broker.workers():
            worker.websocket_client.startService()
            bases[worker.node.id] = f"{service.callback_url}/{tokens.token(worker.node.num, worker.node.token_num)}"
        watch = Watch(reactor, service.database)
        threading.Thread(target=_answer_laps, args=(reactor, watch), daemon=True).start()
        gc.freeze()
        print(json.dumps({"port": service.callback_listener.port, "bases": bases}), flush=True)

    service = make_service(config, reactor, on_broken=sys.exit, on_registered=registered)
    service.startService()
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1])
