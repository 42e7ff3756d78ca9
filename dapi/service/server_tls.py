"""The certificate that the ports show, from the settings."""

from __future__ import annotations

from typing import Any

from dapi.config import Config
from dapi.errors import ConfigError
from dapi.http.server_tls import ServerTls, TlsFiles


def server_tls(reactor: Any, config: Config, *, for_nodes: bool) -> ServerTls | None:
    """Return what the nodes' port, or the admin API's, shows; None where no certificate is set.

    Raises ConfigError when the settings do not fit together, or the files cannot be used.
    """
    tls, url = config.tls, config.api.poc_callback_url
    if tls.certificate is None or tls.key is None:
        for name in ("certificate", "key", "client_ca_file"):
            if getattr(tls, name) is not None:
                missing = "tls.key" if name == "certificate" else "tls.certificate"
                raise ConfigError(f"tls.{name} is set, and {missing} is not: a port needs both for TLS")
        return None
    if for_nodes and url is not None and url.startswith("http://"):
        raise ConfigError(
            "api.poc_callback_url begins with http://, and with tls.certificate the callback port speaks HTTPS alone: "
            "write https://, or leave tls.certificate and tls.key out"
        )
    return ServerTls(reactor, TlsFiles(tls.certificate, tls.key, tls.client_ca_file if for_nodes else None))
