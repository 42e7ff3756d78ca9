"""Make the release of the commit that is checked out, in ``dist/``, and try it: ``make package``, ``make release``.

``package`` builds the source distribution and the wheel twice, in two clean folders, compares them, and checks both. It
installs the wheel into an empty environment of each Python from 3.11 on that this machine has, and runs there the
plugin, the command line and the example of docs/embedding.md. ``release`` does all that, runs the unit tests from the
unpacked source distribution, and lists the components of an installation (``dapi-VERSION.cdx.json``, CycloneDX).
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
MINORS = range(11, 15)
_PATIENCE_SECONDS = 60


def say(text: str) -> None:
    """Tell which step begins."""
    print(f"== {text}", flush=True)


def clean_environment() -> dict[str, str]:
    """Return what a program is run with: an environment that sees the project would pass where others fail."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DAPI_", "PIP_"))}
    return kept | {name: value for name, value in os.environ.items() if name in ("PIP_INDEX_URL", "PIP_CONFIG_FILE")}


def run(*command: str | Path, cwd: Path = ROOT, **environ: str) -> str:
    """Run a program and return what it wrote; leave with that and its exit code when it fails."""
    done = subprocess.run(
        command, cwd=cwd, env={**clean_environment(), **environ}, text=True, capture_output=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return done.stdout


def export(target: Path) -> None:
    """Write the files of the commit into a folder, without anything that is not committed."""
    target.mkdir(parents=True)
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(target, filter="data")


def even_out(path: Path, epoch: int) -> None:
    """Rewrite a source distribution, so that it tells nothing of the machine and the moment in which it was made."""
    with tarfile.open(path) as before:
        members = sorted(before.getmembers(), key=lambda member: member.name)
        opened = {member.name: before.extractfile(member) for member in members}
        contents = {name: file.read() for name, file in opened.items() if file is not None}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as after:
        for member in members:
            is_program = member.isdir() or member.mode & 0o100
            member.mtime, member.mode, member.pax_headers = epoch, 0o755 if is_program else 0o644, {}
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            after.addfile(member, io.BytesIO(contents.get(member.name, b"")))
    path.write_bytes(gzip.compress(buffer.getvalue(), mtime=epoch))


def build(source: Path, target: Path, epoch: int) -> list[Path]:
    """Build both from a folder with nothing but the project's files; return the two files.

    ``epoch`` is the time that is written into them, in seconds.
    """
    options = ("--no-isolation", "--outdir", target)
    run(sys.executable, "-m", "build", *options, source, cwd=source.parent, SOURCE_DATE_EPOCH=str(epoch))
    (sdist,) = target.glob("*.tar.gz")
    even_out(sdist, epoch)
    return sorted(target.iterdir())


def check(files: list[Path]) -> None:
    """Check the metadata of both, and what is in the wheel."""
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    (wheel,) = [path for path in files if path.suffix == ".whl"]
    run(Path(sys.executable).parent / "check-wheel-contents", "--config", ROOT / "pyproject.toml", wheel)


def hashes(files: list[Path]) -> dict[str, str]:
    """Return the SHA-256 of each file by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def pythons() -> list[Path]:
    """Return each Python that dapi supports and this machine has, one of each minor version."""
    root = run("pyenv", "root").strip() if shutil.which("pyenv") else None
    found = []
    for minor in MINORS:
        of_pyenv = sorted(Path(root).glob(f"versions/3.{minor}.*/bin/python")) if root else []
        on_path = shutil.which(f"python3.{minor}")
        for each in [*([Path(on_path)] if on_path else []), *of_pyenv]:
            # What pyenv puts on the path is there for versions that are not, too.
            if subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
                found.append(each)
                break
    return found


def install(python: Path, wheel: Path, folder: Path) -> Path:
    """Install the wheel into an empty environment; return the folder of its programs."""
    run(python, "-m", "venv", "--without-pip", folder)
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=folder)
    return folder / "bin"


def try_out(programs: Path, folder: Path) -> None:
    """Run what was installed, from a folder that has nothing of the project: plugin, command line, example."""
    plugins = run(programs / "twistd", "--help", cwd=folder)
    if not any(line.split()[:1] == ["dapi"] for line in plugins.splitlines()):
        sys.exit(f"twistd does not know dapi:\n{plugins}")
    run(programs / "twistd", "dapi", "--help", cwd=folder)
    run(programs / "dapi", "--help", cwd=folder)
    settings = folder / "config.yaml"
    settings.write_text(
        "api: {ml_server_host: 127.0.0.1, ml_server_port: 0, admin_server_port: 0}\n"
        f"storage: {{path: {folder / 'outbox.db'}}}\n"
    )
    example = folder / "embedded.py"
    shutil.copy(ROOT / "docs" / "examples" / example.name, example)
    start_and_stop(folder, programs / "python", example, settings)
    start_and_stop(folder, programs / "twistd", "-n", "dapi", "--config", settings)


def start_and_stop(folder: Path, *command: str | Path) -> None:
    """Start a process, wait until its admin port is open, end it, and leave where one of that fails."""
    log = folder / "log"
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=folder, env=clean_environment(), stdout=file, stderr=subprocess.STDOUT)
    end = time.monotonic() + _PATIENCE_SECONDS
    while "admin: listening on" not in log.read_text() and process.poll() is None and time.monotonic() < end:
        # A file, not a pipe: a pipe would have to be read to the end, or it fills.
        time.sleep(0.1)
    is_open = "admin: listening on" in log.read_text()
    process.send_signal(signal.SIGTERM)
    try:
        code = process.wait(_PATIENCE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        code = process.wait()
    # twistd ends itself with the signal that it got.
    if not is_open or code not in (0, -signal.SIGTERM):
        sys.exit(f"{' '.join(map(str, command))} ended with {code}\n{log.read_text()}")


def package(folder: Path) -> None:
    """Build, compare, check, and try in each Python."""
    if run("git", "status", "--porcelain"):
        sys.exit("there are changes that are not committed: a release is of a commit")
    say("building twice")
    epoch = int(run("git", "log", "-1", "--format=%ct"))
    builds = []
    for name in ("first", "second"):
        export(folder / name / "source")
        builds.append(build(folder / name / "source", folder / name / "dist", epoch))
    first, second = builds
    if hashes(first) != hashes(second):
        sys.exit(f"two builds differ:\n{hashes(first)}\n{hashes(second)}")
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    files = [Path(shutil.copy(path, DIST)) for path in first]
    for name, digest in hashes(files).items():
        print(f"{digest}  {name}")
    say("twine check, check-wheel-contents")
    check(files)
    (wheel,) = DIST.glob("*.whl")
    for python in pythons():
        version = run(python, "-c", "import sys; print(sys.version.split()[0])").strip()
        say(f"installing the wheel into an empty environment of Python {version}, and running it there")
        home = folder / version
        try_out(install(python, wheel, home / "environment"), home)


def release(folder: Path) -> None:
    """Do what ``package`` does, run the unit tests of the source distribution, and list the components."""
    package(folder)
    say("the unit tests, from the source distribution")
    (sdist,) = DIST.glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        files.extractall(folder / "unpacked", filter="data")
    (source,) = (folder / "unpacked").iterdir()
    print(run(sys.executable, "-m", "pytest", "-q", "tests/unit", cwd=source).splitlines()[-1])
    say("the list of components")
    environment = next(iter(folder.glob("3.*"))) / "environment"
    (wheel,) = DIST.glob("*.whl")
    sbom = DIST / f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"
    run(
        sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--output-file", sbom, environment
    )
    print(sbom.relative_to(ROOT))


def main() -> int:
    """Do what the command line says."""
    steps = {"package": package, "release": release}
    if sys.argv[1:] not in ([name] for name in steps):
        sys.exit(f"usage: python -m tools.release {'|'.join(steps)}")
    with tempfile.TemporaryDirectory() as folder:
        steps[sys.argv[1]](Path(folder))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
