"""Whether the tracking server can be reached from here."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from ml_core.preflight.check import Check, error, ok, warning

TIMEOUT_S = 3.0
_PORTS = {"http": 80, "https": 443}


def check_tracker(uri: str | None, environment: Mapping[str, str] = os.environ) -> list[Check]:
    """Return whether something answers at the server of `uri`; nothing for a file or none.

    Only the connection is tried: not the address, name and password. Where a proxy is set, that
    is the way the connection goes, and the proxy is tried.
    """
    if uri is None or uri.partition(":")[0] not in _PORTS:
        return []
    try:
        proxy = _proxy(uri, environment)
        address = _address(proxy or uri)
    except ValueError as problem:
        told = f"the address of the tracker is none: {problem}."
        return [error("tracker", told, "Mend tracking.mlflow_uri, or the proxy's variable.")]
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


def _proxy(uri: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy on the way to `uri`, with its scheme; None where none is set or wanted."""
    parts = urlsplit(uri)
    proxy = environment.get(f"{parts.scheme}_proxy")
    listed = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    spared = [name.strip().lstrip(".") for name in listed.split(",")]
    host = parts.hostname or ""
    if not proxy or any(host == name or host.endswith(f".{name}") for name in spared if name):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _address(uri: str) -> tuple[str, int]:
    """Return host and port; raises ValueError."""
    parts = urlsplit(uri)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)
