"""``twistd dapi``: its options, and the service that they make. Only this module changes settings of the process."""

from __future__ import annotations

import atexit
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from twisted.application.service import IService, MultiService
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IReactorCore
from twisted.logger import FileLogObserver, ILogObserver, LegacyLogObserverWrapper, Logger
from twisted.python import usage
from twisted.python.components import Componentized

from dapi.errors import ConfigError, DapiError
from dapi.timing.clock import make_monotonic
from dapi.timing.log_json import json_line
from dapi.timing.log_levels import LogLevels

if TYPE_CHECKING:
    from dapi.config import Config

# For this long a thread waits after a system call until the busy reactor's thread lets it go on. A commit waits several
# times; Python's own 5 ms are too long for that.
SWITCH_INTERVAL_SECONDS = 0.0005

# The default of twistd's --pidfile.
_PID_FILE = "twistd.pid"

_log = Logger()


class Options(usage.Options):
    """The command line; after parsing, ``settings`` is the Config, and ``warnings`` are for the log."""

    synopsis = "[options]"
    longdesc = "Everything else is set by the YAML file or the environment: docs/settings.md lists it."
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
        ("log-level", None, None, "What the log has, like info,websocket=debug (DAPI_LOG__LEVEL)."),
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

    def parseOptions(self, options: Sequence[str] | None = None) -> None:  # noqa: N802
        """Read the command line; of what twistd runs, a mistake ends the process with one line that names it.

        twistd itself would print all options before the error.
        """
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            if self.parent is None:
                raise
            raise SystemExit(f"dapi: {error}\n`twistd dapi --help` lists the options") from error

    def postOptions(self) -> None:
        """Read all settings; a wrong setting is a usage error."""
        # Here, not at the top: what the settings import takes longer than all of `twistd dapi --help`.
        from dapi.config import OPTIONS, load_config

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
    from dapi.service.memory import save_memory
    from dapi.service.systemd import SystemdNotifier

    for warning in options.warnings:
        _log.warn("{warning}", warning=warning)
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    save_memory()
    sys.excepthook = _show_without_traceback
    make_monotonic(reactor)
    _allow_many_connections()
    _stop_at_hangup(reactor)
    levels = LogLevels(options.settings.log.level)
    service = make_service(
        options.settings,
        reactor,
        on_broken=lambda reason: _stop(reactor, reason),
        # The nodes and their workers stay, too.
        on_registered=gc.freeze,
        log_levels=levels,
    )
    sys.excepthook = partial(_show_without_traceback, log_is_elsewhere=_log_is_elsewhere(options.parent))
    # All that is imported and made by now stays. Full collections went through it again and again, and each held the
    # reactor up for 0.15 s; with 200 nodes they took a tenth of the CPU.
    gc.freeze()
    root = _Root(service, options, levels)
    if "NOTIFY_SOCKET" in os.environ:
        # Behind dapi: started after it, stopped before it.
        SystemdNotifier(reactor, os.environ).setServiceParent(root)  # type: ignore[no-untyped-call]
    return root


def _stop_at_hangup(reactor: Any) -> None:
    """Stop in order when the terminal is gone, or somebody wants a log to be rotated; Twisted would just die."""

    def stop() -> None:
        _log.warn("stopping: SIGHUP came. SIGUSR1 has twistd begin a new log file")
        with contextlib.suppress(ReactorNotRunning):
            reactor.stop()

    # Whoever runs it under nohup wants it to go on.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: reactor.callFromThread(stop))


def _allow_many_connections() -> None:
    """Raise the limit of open files to what the system allows: it is often 1024, and each node takes two or more."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where the system does not say how many it allows, it may refuse.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class _Root(MultiService):
    """What twistd runs: it gives the application a log of the levels that are wanted."""

    def __init__(self, service: IService, options: Options, levels: LogLevels) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._twistd_options = options.parent
        self._log_format = options.settings.log.format
        self._log_levels = levels
        service.setServiceParent(self)

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Enter the application, before twistd begins to log."""
        super().setServiceParent(parent)  # type: ignore[no-untyped-call]
        if isinstance(parent, Componentized) and self._twistd_options is not None:
            observer = _log_observer(self._twistd_options, self._log_format)
            parent.setComponent(ILogObserver, self._log_levels.filtered(observer))


def _log_observer(twistd_options: usage.Options, log_format: str) -> ILogObserver:
    """Return the observer that twistd would have made: for a file, the terminal or syslog.

    Lines of a file or the terminal are in ``log_format``; syslog has lines of its own.
    """
    from twisted.scripts._twistd_unix import UnixAppLogger

    observer: Any = UnixAppLogger(twistd_options)._getLogObserver()
    if isinstance(observer, FileLogObserver) and log_format == "json":
        return FileLogObserver(observer._outFile, json_line)
    # That of syslog is of the older kind.
    return observer if ILogObserver.providedBy(observer) else LegacyLogObserverWrapper(observer)


def _log_is_elsewhere(twistd_options: Mapping[str, Any] | None) -> bool:
    """Tell whether whoever starts it by hand does not see the log."""
    if twistd_options is None:
        return False
    is_in_file = twistd_options.get("logfile") not in (None, "-") or not twistd_options.get("nodaemon")
    return is_in_file or bool(twistd_options.get("syslog") or twistd_options.get("logger"))


def _show_without_traceback(
    type_: type[BaseException],
    error: BaseException,
    traceback: TracebackType | None,
    *,
    log_is_elsewhere: bool = False,
) -> None:
    """Log why a service cannot start: twistd ends the process with its exception then.

    Before the log begins, Twisted writes what is critical to the terminal.
    """
    if not isinstance(error, DapiError):
        sys.__excepthook__(type_, error, traceback)
        return
    _log.critical("cannot start: {error}", error=str(error))
    # twistd sends sys.stderr to the log.
    if log_is_elsewhere and sys.__stderr__ is not None:
        sys.__stderr__.write(f"cannot start: {error}\n")


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
