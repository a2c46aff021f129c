"""Which web addresses are asked, redirects included."""

from __future__ import annotations

import http.client
import ipaddress
import urllib.request
from typing import IO
from urllib.parse import urlsplit

from ml_core.errors import DataError


def check_address(url: str, *, only_https: bool) -> None:
    """Raise DataError unless `url` is https, or http where that is allowed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise DataError(f"{url} is no address: {error}.") from error
    if "@" in parts.netloc:  # not shown again, and not logged
        raise DataError(f"the address on {host} holds a name or password, which is not used.")
    if not url.isprintable() or " " in url:
        raise DataError(f"{url!r} is no address: it holds a blank or a control character.")
    is_allowed = parts.scheme == "https" or (
        parts.scheme == "http" and (not only_https or _is_loopback(host))
    )
    if not is_allowed or not host:
        raise DataError(
            f"{url} is not asked: allowed is https://, and http:// where --url says so."
        )


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never to an address that could not have been asked for."""

    def __init__(self, *, only_https: bool) -> None:
        self._only_https = only_https

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        check_address(newurl, only_https=self._only_https)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
