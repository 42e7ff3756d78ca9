"""The token that the admin API asks for, from the settings."""

from __future__ import annotations

from pathlib import Path

from dapi.config import ApiConfig
from dapi.errors import ConfigError
from dapi.messages.urls import is_loopback

_MIN_CHARACTERS = 16


def admin_token(api: ApiConfig) -> str | None:
    """Return the token, None where none is set and none is needed: the host is a loopback address.

    Raises ConfigError when one is needed, when its file cannot be read, and when it is short enough to be guessed.
    """
    if api.admin_token is not None and api.admin_token_file is not None:
        raise ConfigError("api.admin_token and api.admin_token_file are both set: leave one of them out")
    token, where = None, "api.admin_token"
    if api.admin_token is not None:
        token = api.admin_token.reveal().strip()
    elif api.admin_token_file is not None:
        where = f"api.admin_token_file ({api.admin_token_file})"
        token = _read(api.admin_token_file, where)
    if token is None:
        if not is_loopback(api.admin_server_host):
            raise ConfigError(
                f"api.admin_server_host is {api.admin_server_host}, so others can reach the admin API: set "
                "api.admin_token or api.admin_token_file (make one with: openssl rand -hex 32), or bind it to 127.0.0.1"
            )
        return None
    if len(token) < _MIN_CHARACTERS or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"{where}: has to be {_MIN_CHARACTERS} ASCII characters or more, without blanks")
    return token


def _read(path: str, where: str) -> str:
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{where}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: is not UTF-8 text") from error
