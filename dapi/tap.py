"""``twistd dapi``: its options, and the service that they make. Only this module changes settings of the process."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from types import TracebackType

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import Logger
from twisted.python import usage

from dapi.config import OPTIONS, Config, load_config
from dapi.errors import ConfigError, DapiError

# For this long a thread waits after a system call until the busy reactor's thread lets it go on. A commit waits several
# times; Python's own 5 ms are too long for that.
_SWITCH_INTERVAL_SECONDS = 0.0005

# The default of twistd's --pidfile.
_PID_FILE = "twistd.pid"

_log = Logger()


class Options(usage.Options):
    """The command line; after parsing, ``settings`` is the Config, and ``warnings`` are for the log."""

    synopsis = "[options]"
    longdesc = "Everything else is set by the YAML file or the environment: see the table in the README."
    optParameters = (
        ("config", "c", None, "YAML file with the settings (environment: API_CONFIG_PATH)."),
        ("node-config", None, None, "JSON list of ML nodes, the network's node-config.json (NODE_CONFIG_PATH)."),
        ("database", "d", None, "File to keep batches in (DAPI_STORAGE__PATH)."),
        ("callback-host", None, None, "Address to take ML nodes' callbacks on (DAPI_API__ML_SERVER_HOST)."),
        ("callback-port", None, None, "Port to take ML nodes' callbacks on (DAPI_API__ML_SERVER_PORT)."),
        ("callback-url", None, None, "URL under which ML nodes reach that port (DAPI_API__POC_CALLBACK_URL)."),
        ("admin-host", None, None, "Address of the admin API (DAPI_API__ADMIN_SERVER_HOST)."),
        ("admin-port", None, None, "Port of the admin API (DAPI_API__ADMIN_SERVER_PORT)."),
        ("chain-url", None, None, "RPC URL of the chain (DAPI_CHAIN_NODE__URL)."),
    )
    optFlags = (  # noqa: N815
        (
            "new-database",
            None,
            "For one start: make a new database in place of an empty file (DAPI_STORAGE__NEW_DATABASE).",
        ),
    )
    settings: Config
    warnings: list[str]

    def postOptions(self) -> None:
        """Read all settings; a wrong setting is a usage error."""
        options = {name: self[name] for name in OPTIONS if self[name] not in (None, 0)}
        try:
            self.settings, self.warnings = load_config(
                self["config"], node_config_path=self["node-config"], options=options, environ=os.environ
            )
        except ConfigError as error:
            raise usage.UsageError(str(error)) from error
        self._want_no_pid_file()

    def _want_no_pid_file(self) -> None:
        """In the foreground, have twistd write no pid file and ignore an old one, unless a pid file is asked for.

        After a kill -9 the file stays, and in a container the next process has the same number as in the file: twistd
        would believe that another server runs, and never start again. The lock of the database keeps a second one out.
        """
        if self.parent is not None and self.parent["nodaemon"] and self.parent["pidfile"] == _PID_FILE:
            self.parent["pidfile"] = ""


def makeService(options: Options) -> IService:
    """Return the service that twistd runs."""
    from twisted.internet import reactor

    from dapi.service import make_service

    for warning in options.warnings:
        _log.warn("{warning}", warning=warning)
    sys.setswitchinterval(_SWITCH_INTERVAL_SECONDS)
    sys.excepthook = _show_without_traceback
    return make_service(options.settings, reactor, on_broken=lambda reason: _stop(reactor, reason))


def _show_without_traceback(type_: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    # When a service cannot start, twistd ends the process with its exception.
    if isinstance(error, DapiError):
        _log.critical("cannot start: {error}", error=str(error))
        # twistd sends sys.stderr to the log; whoever started it by hand looks at the terminal.
        if sys.__stderr__ is not None:
            sys.__stderr__.write(f"dapi: {error}\n")
    else:
        sys.__excepthook__(type_, error, traceback)


def _stop(reactor: IReactorCore, reason: str) -> None:
    """Stop the process for good, with exit code 1, which twistd itself cannot."""
    _log.critical("stopping: {reason}", reason=reason)
    atexit.register(_exit_with_failure)
    # The database may break while the process stops already.
    with contextlib.suppress(ReactorNotRunning):
        reactor.stop()


def _exit_with_failure() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
