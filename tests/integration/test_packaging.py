"""What an installation brings, each way of installing into an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools.release import build, check, hashes

PROJECT = Path(__file__).parent.parent.parent
# Nothing is fetched: the dependencies are those of the environment that runs the tests.
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
OFFLINE = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation")
TWISTD = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
PATIENCE_SECONDS = 300


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command away from the project and return what it printed."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "DAPI_"))}
    done = subprocess.run(command, cwd=cwd, env=environ, text=True, capture_output=True, timeout=PATIENCE_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of what is needed to build, since building writes beside it."""
    target = tmp_path / "source"
    for name in ("dapi", "twisted"):
        shutil.copytree(PROJECT / name, target / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
    for name in ("setup.py", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(PROJECT / name, target)
    return target


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of all files of the project, as in a clean folder."""
    made = ("__pycache__", "dropin.cache", "build", "dist", "*.egg-info", ".git", ".venv", ".*_cache", ".hypothesis")
    target = tmp_path / "project"
    shutil.copytree(PROJECT, target, ignore=shutil.ignore_patterns(*made, "_trial_temp*"))
    return target


@pytest.fixture
def wheel(source: Path) -> Path:
    """The wheel, built from that copy."""
    run(*PIP, "wheel", *OFFLINE, "--wheel-dir", source.parent, source, cwd=source.parent)
    (built,) = source.parent.glob("dapi-*.whl")
    return built


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """The interpreter of a fresh environment that sees all dependencies, and dapi not at all."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    library = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(library, "dependencies.pth").write_text("\n".join(paths) + "\n")
    assert "None" in run(python, "-c", "import importlib.util as u; print(u.find_spec('dapi'))", cwd=tmp_path)
    return python


@pytest.mark.parametrize("way", ["folder", "editable", "wheel"])
def test_twistd_knows_dapi_after(way: str, source: Path, python: Path, request: pytest.FixtureRequest) -> None:
    what: list[str | Path] = ["--editable"] if way == "editable" else []
    what.append(request.getfixturevalue("wheel") if way == "wheel" else source)
    elsewhere = source.parent
    run(*PIP, "--python", python, "install", *OFFLINE, *what, cwd=elsewhere)
    listed = run(python, "-c", TWISTD, "--help", cwd=elsewhere)
    assert [line for line in listed.splitlines() if line.split()[:1] == ["dapi"]], listed
    assert "--callback-port=" in run(python, "-c", TWISTD, "dapi", "--help", cwd=elsewhere)
    home = Path(run(python, "-c", "import dapi.service; print(dapi.__file__)", cwd=elsewhere).strip())
    assert home.is_relative_to(source if way == "editable" else elsewhere / "venv")


def installed_with(requirement: Requirement, found: set[str]) -> set[str]:
    """Add to ``found`` the names of all distributions that this one brings, in this environment."""
    name = canonicalize_name(requirement.name)
    if name not in found:
        found.add(name)
        for text in metadata.requires(requirement.name) or ():
            needed = Requirement(text)
            if any(not needed.marker or needed.marker.evaluate({"extra": e}) for e in ("", *requirement.extras)):
                installed_with(needed, found)
    return found


def test_every_distribution_is_pinned() -> None:
    lines = (PROJECT / "constraints.txt").read_text().splitlines()
    pins = (line.partition("==") for line in lines if not line.startswith("#"))
    pinned = {str(canonicalize_name(name)): version for name, _, version in pins}
    extras = metadata.metadata("dapi").get_all("Provides-Extra") or []
    names = installed_with(Requirement(f"dapi[{','.join(extras)}]"), set()) - {"dapi"}
    assert {name: pinned.get(name) for name in names} == {name: metadata.version(name) for name in names}


def test_what_a_host_installs_is_pinned_by_hash() -> None:
    text = (PROJECT / "requirements.txt").read_text()
    entries = re.findall(r"^(\S+)==(\S+).*((?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", text, re.MULTILINE)
    locked = {str(canonicalize_name(name)): version for name, version, _ in entries}
    names = installed_with(Requirement("dapi[speedups]"), set()) - {"dapi"}
    # What other Pythons need besides is there, too.
    found = {name: locked.get(name) for name in names}
    assert found == {name: metadata.version(name) for name in names}, "run `make lock`"


def test_wheel_holds_what_it_should(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"twisted/plugins/dapi_plugin.py", "dapi/py.typed", "dapi/service/lifecycle.py"} <= names
    # In a wheel these would overwrite Twisted's own, and go away with dapi.
    assert not {"twisted/__init__.py", "twisted/plugins/__init__.py"} & names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"dapi", "twisted"}
    ours = {str(path.relative_to(PROJECT)) for path in (PROJECT / "dapi").rglob("*.py*") if path.suffix != ".pyc"}
    assert ours <= names
    protos = {str(path.relative_to(PROJECT)) for path in (PROJECT / "dapi").rglob("*.proto")}
    assert protos
    assert protos <= names


def test_two_builds_give_the_same_and_nothing_is_missing(project: Path, tmp_path: Path) -> None:
    builds = []
    for number in (1, 2):
        # Another time of each file, as where somebody else fetched them.
        for path in project.rglob("*"):
            os.utime(path, (number * 10**8, number * 10**8))
        builds.append(build(project, tmp_path / str(number), 1_700_000_000))
        for made in ("build", "dapi.egg-info"):
            shutil.rmtree(project / made, ignore_errors=True)
    assert hashes(builds[0]) == hashes(builds[1])
    check(builds[0])
    (sdist,) = tmp_path.glob("1/*.tar.gz")
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
        assert {member.uname for member in files.getmembers()} == {""}
    ours = {str(path.relative_to(project)) for path in project.rglob("*") if path.is_file()}
    assert ours - names == set()
    assert {"LICENSE", "CHANGELOG.md", "tests/unit/test_layers.py", "docs/examples/embedded.py"} <= names
