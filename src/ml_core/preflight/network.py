"""Whether the tracking server can be reached from here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ml_core.preflight.check import Check, ok, warning

TIMEOUT_S = 3.0
_PORTS = {"http": 80, "https": 443}


def check_tracker(uri: str | None, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Return whether something answers at the server of `uri`; nothing for a file or none.

    Only the connection is tried: not the address, name and password. Where a proxy is set, that
    is the way the connection goes, and the proxy is tried.
    """
    if uri is None or urlsplit(uri).scheme not in _PORTS:
        return []
    proxy = environment.get(f"{urlsplit(uri).scheme}_proxy")
    parts = urlsplit(proxy or uri)
    address = (parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80))
    where = f"{address[0]}:{address[1]}"
    try:
        socket.create_connection(address, timeout=TIMEOUT_S).close()
    except OSError as problem:
        told = f"{where} does not answer from here ({problem.strerror or problem})."
        remedy = (
            "Training goes on without it; send the run later: ml-core track sync RUN. "
            "The machines of the jobs may reach another network."
        )
        return [warning("tracker", told, remedy)]
    told = f"{where} answers{' (the proxy)' if proxy else ''}; the machines of the jobs may differ."
    return [ok("tracker", told)]
