"""Compile ``dapi/messages/proto/*.proto`` to ``dapi/messages/*_pb2.py`` and ``.pyi``: ``python -m tools.make_proto``.

The compiled code is checked in, so that installing dapi needs no compiler; ``tests/unit/test_proto.py`` tells when it
is stale. It is the work of the compiler in ``grpcio-tools``, whose version is pinned: another one writes other code.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dapi/messages"
SOURCES = ROOT / PACKAGE / "proto"


def compile_protos(target: Path) -> list[Path]:
    """Compile all sources into ``target/dapi/messages`` (made if missing) and return what was written, sorted.

    Raises RuntimeError when the compiler refuses a source; its reasons are on standard error.
    """
    # The sources appear under the package's path, so that the names that protobuf registers them by are ours alone.
    names = [f"{PACKAGE}/{source.name}" for source in sorted(SOURCES.glob("*.proto"))]
    target.mkdir(parents=True, exist_ok=True)
    options = [f"-I{PACKAGE}={SOURCES}", f"--python_out={target}", f"--pyi_out={target}"]
    if protoc.main(["protoc", *options, *names]) != 0:
        raise RuntimeError("the protobuf compiler refused a source")
    stems = [Path(name).with_suffix("") for name in names]
    return sorted(target / f"{stem}_pb2{suffix}" for stem in stems for suffix in (".py", ".pyi"))


def main() -> int:
    """Write the compiled code into the project and print the names of the files."""
    for path in compile_protos(ROOT):
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
