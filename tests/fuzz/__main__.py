"""Fuzzes each target in a process of its own: ``python -m tests.fuzz [--seconds N] [TARGET …]``.

An input that a target fails with is written to ``tests/fuzz/corpus/TARGET``: mend what it shows, and commit it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
NAMES = sorted(path.name for path in CORPUS.iterdir())
_MAX_LENGTH = 4096
# Longer ones, nested thousands deep, take 30 s each while branches are counted.
_MAX_LENGTHS = {"configuration": 512}
# The one that a child process is for.
_CHILD = "--child"


def fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    # `make fuzz` installs it. It counts the branches of what is imported from here on.
    import atheris

    with atheris.instrument_imports(include=["dapi", "yaml", "h11"]):
        from tests.fuzz.targets import TARGETS

    scratch = Path("build/fuzz") / name
    scratch.mkdir(parents=True, exist_ok=True)
    folders = [str(scratch), str(CORPUS / name)]
    limits = [
        f"-max_total_time={seconds}",
        f"-max_len={_MAX_LENGTHS.get(name, _MAX_LENGTH)}",
        "-timeout=60",
        "-print_final_stats=1",
    ]
    atheris.Setup([name, *limits, f"-artifact_prefix={CORPUS / name}/found-", *folders], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Fuzz the targets that are asked for, one after the other; return 1 when one has failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument(_CHILD, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", choices=[*NAMES, []], metavar="TARGET")
    options = parser.parse_args()
    if options.child:
        fuzz(options.targets[0], options.seconds)
        return 0
    failed = []
    for name in options.targets or NAMES:
        print(f"== {name}", flush=True)
        command = [sys.executable, "-m", "tests.fuzz", _CHILD, "--seconds", str(options.seconds), name]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"== failed: {', '.join(failed) or 'none'}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
