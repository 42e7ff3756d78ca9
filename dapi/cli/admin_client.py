"""Calls of the admin API, one after the other, over a connection each."""

from __future__ import annotations

import json
from pathlib import Path
from ssl import SSLCertVerificationError, SSLContext, SSLError, create_default_context
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from dapi.cli.errors import CliError
from dapi.cli.exit_codes import ExitCode

_BASE = "/admin/v1"
_TIMEOUT_SECONDS = 40.0
_SHOWN_CHARACTERS = 200


class AdminClient:
    """Asks the dapi whose admin API is at ``url``; ``token`` goes along as a bearer token.

    ``ca_file`` is the PEM file of the authorities that an https one is checked against, None for the system's.
    Each method returns the decoded answer. It raises CliError: UNREACHABLE when no dapi answers, REFUSED with dapi's
    own words when dapi says no.
    """

    def __init__(self, url: str, token: str | None = None, ca_file: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._ca_file = ca_file

    def get(self, path: str, **query: object) -> Any:
        """GET below ``/admin/v1``; parameters that are None are left out."""
        return self.call("GET", path, query=query)

    def post(self, path: str, body: object = None, **query: object) -> Any:
        """POST below ``/admin/v1``."""
        return self.call("POST", path, body, query)

    def put(self, path: str, body: object) -> Any:
        """PUT below ``/admin/v1``."""
        return self.call("PUT", path, body)

    def delete(self, path: str) -> Any:
        """DELETE below ``/admin/v1``."""
        return self.call("DELETE", path)

    def call(self, method: str, path: str, body: object = None, query: dict[str, object] | None = None) -> Any:
        """Make one call, and return what its JSON says."""
        arguments = {name: str(value) for name, value in (query or {}).items() if value is not None}
        target = f"{_BASE}{path}" + (f"?{urlencode(arguments)}" if arguments else "")
        status, answer = self._exchange(method, target, body)
        try:
            value = json.loads(answer)
        except ValueError:
            shown = answer[:_SHOWN_CHARACTERS].decode("utf-8", "replace")
            raise self._unreachable(f"what answers there is no dapi ({status}): {shown}") from None
        if status < 300:
            return value
        error = value.get("error") if isinstance(value, dict) else None
        if error is None and isinstance(value, dict) and "errors" in value:
            # Of many nodes none was taken.
            return value
        advice = "; give dapi's token: --token-file, or DAPI_ADMIN_TOKEN" if status in (401, 403) else ""
        raise CliError(f"{error or answer.decode('utf-8', 'replace')}{advice}", ExitCode.REFUSED)

    def _tls_context(self) -> SSLContext:
        try:
            return create_default_context(cafile=self._ca_file and str(Path(self._ca_file).expanduser()))
        except OSError as error:
            reason = error.strerror if not isinstance(error, SSLError) else "it holds no certificate in PEM form"
            raise CliError(f"the CA file {self._ca_file} cannot be used: {reason}", ExitCode.USAGE) from error

    def _exchange(self, method: str, target: str, body: object) -> tuple[int, bytes]:
        from http.client import HTTPConnection, HTTPException, HTTPSConnection

        parts = urlsplit(self._url)
        host, port = str(parts.hostname), parts.port
        connection = (
            HTTPSConnection(host, port, timeout=_TIMEOUT_SECONDS, context=self._tls_context())
            if parts.scheme == "https"
            else HTTPConnection(host, port, timeout=_TIMEOUT_SECONDS)
        )
        headers = {"Accept": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            encoded = json.dumps(body).encode() if body is not None else None
            connection.request(method, parts.path + target, encoded, headers)
            response = connection.getresponse()
            return response.status, response.read()
        except SSLCertVerificationError as error:
            said = error.verify_message or str(error)
            raise CliError(
                f"{self._url} cannot be trusted: {said}; give the authority of its certificate: --ca-file, or "
                "DAPI_CA_FILE; and call it by a name in the certificate: --url, or DAPI_URL",
                ExitCode.UNREACHABLE,
            ) from error
        except (OSError, HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._unreachable(reason) from error
        finally:
            connection.close()

    def _unreachable(self, reason: str) -> CliError:
        return CliError(
            f"no dapi answers at {self._url}: {reason}; see that it runs, or give its admin API: --url, or DAPI_URL",
            ExitCode.UNREACHABLE,
        )


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")
