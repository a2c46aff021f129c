"""One file over HTTP onto the disk: resumed, retried, and checked before it has its name."""

from __future__ import annotations

import http.client
import re
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Protocol

import ml_core
from ml_core.data.transfer.part_file import PartFile
from ml_core.data.transfer.patience import Patience, TryAgainError, asked_wait_s
from ml_core.data.transfer.web_address import Redirects, check_address
from ml_core.errors import DataError
from ml_core.log import progress

_BLOCK_BYTES = 2**20
_USER_AGENT = f"ml-core/{ml_core.__version__} (Python urllib)"
# The server's own trouble, or ours with it: worth asking again (RFC 9110 and RFC 6585).
_WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Expected:
    """What a download must be; `size` None where it is not known, and `max_size` holds then."""

    md5: str
    max_size: int
    size: int | None = None
    is_gzip: bool = False
    known: Mapping[str, str] = field(default_factory=dict)  # names of other files, by their MD5


class _MixedUpError(TryAgainError):
    """Bytes of several answers that make no right file together."""


class _Answer(Protocol):
    """What this module uses of http.client.HTTPResponse."""

    status: int
    headers: http.client.HTTPMessage
    url: str

    def read1(self, size: int, /) -> bytes: ...


def fetch(
    url: str, path: Path, expected: Expected, patience: Patience, *, only_https: bool = True
) -> None:
    """Make `path` the file served at `url`, its MD5 checked; go on from what PATH.part holds.

    One connection at a time. Raises DataError: for an address that is not https (loopback may be
    http), an answer that no asking again will mend (404, a web page, another length, a range other
    than asked for), a file that is whole but wrong, and when `patience` is at its end. What came
    so far stays in PATH.part, unless it is wrong.
    """
    check_address(url, only_https=only_https)
    part = PartFile(path)
    opener = urllib.request.build_opener(Redirects(only_https=only_https))
    furthest, num_failures, was_mixed_up = part.size, 0, False
    while True:
        try:
            _fetch_rest(url, part, expected, patience, opener)
            break
        except TryAgainError as problem:
            num_failures = 1 if part.size > furthest else num_failures + 1
            furthest = max(furthest, part.size)
            if isinstance(problem, _MixedUpError):
                if was_mixed_up:  # once is bad luck, twice is another file
                    raise DataError(f"{url} serves another file: {problem}.") from problem
                was_mixed_up, furthest = True, 0
            if num_failures >= patience.num_attempts:
                raise DataError(
                    f"{url}: {problem} ({num_failures} times in a row). What came so far is kept; "
                    "run this again later to go on."
                ) from problem
            patience.wait(url, problem, num_failures)
    part.finish()


def _fetch_rest(
    url: str,
    part: PartFile,
    expected: Expected,
    patience: Patience,
    opener: urllib.request.OpenerDirector,
) -> None:
    """Make one request for what is missing of `part`, and check it when it is whole."""
    if part.size == 0 or part.size != expected.size:
        with _failures_named():
            request = _request(url, part)
            try:
                answer = opener.open(request, timeout=patience.timeout_s)
            except urllib.error.HTTPError as error:
                with error:
                    _judge_refusal(url, error, part)
            else:
                with answer:
                    _take_body(answer, part, expected)
    _check_whole(url, part, expected)


def _request(url: str, part: PartFile) -> urllib.request.Request:
    headers = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.etag:
            headers["If-Range"] = part.etag
    return urllib.request.Request(url, headers=headers)


def _take_body(answer: _Answer, part: PartFile, expected: Expected) -> None:
    """Append to `part` what `answer` holds, from the beginning unless it is the rest."""
    promised = _check_head(answer, part, expected)
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        part.is_resumed = part.size > 0
    else:  # the server knows no ranges, or has another version than the one that began
        part.restart(_strong_etag(answer))
    end = None if promised is None else part.size + promised
    limit = expected.size or expected.max_size
    total = None if promised is None else -(-promised // _BLOCK_BYTES)
    for block in progress(_blocks(answer), total=total, description=part.path.name, unit="blocks"):
        if part.size + len(block) > limit:
            part.discard()
            raise DataError(f"{answer.url} sends more than the {limit:,} bytes there can be.")
        if part.size == 0 and expected.is_gzip and not b"\x1f\x8b".startswith(block[:2]):
            part.discard()
            raise DataError(f"{answer.url} is not gzip-compressed: it starts with {block[:40]!r}.")
        part.append(block)
    if end is not None and part.size < end:
        raise TryAgainError(f"cut off after {part.size:,} of {end:,} bytes")


def _check_head(answer: _Answer, part: PartFile, expected: Expected) -> int | None:
    """Return how many bytes are to come, if it is said; raise DataError for no such file."""
    if answer.status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise DataError(f"{answer.url} answers {answer.status}, which is no file. Try again later.")
    if answer.headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise DataError(
            f"{answer.url} answers with a web page instead of the file: it asks for a login, or "
            "something on the way does. Open the address in a browser to see what it wants."
        )
    start = 0
    if answer.status == HTTPStatus.PARTIAL_CONTENT:
        _check_range(answer, part, expected)
        start = part.size
    said = answer.headers.get("Content-Length", "").strip()
    promised = int(said) if said.isdigit() else None
    if promised is not None and expected.size not in (None, start + promised):
        raise DataError(
            f"{answer.url} offers a file of {start + promised:,} bytes; the right one has "
            f"{expected.size:,}. The address is wrong, or something on the way changes files."
        )
    return promised


def _blocks(answer: _Answer) -> Iterator[bytes]:
    """Yield what comes, gathered into blocks; before an error, what came before it."""
    gathered = bytearray()
    try:
        while piece := answer.read1(_BLOCK_BYTES):
            gathered += piece
            if len(gathered) >= _BLOCK_BYTES:
                yield bytes(gathered)
                gathered.clear()
    except (OSError, http.client.HTTPException):
        if gathered:
            yield bytes(gathered)
        raise
    if gathered:
        yield bytes(gathered)


def _check_range(answer: _Answer, part: PartFile, expected: Expected) -> None:
    """Raise DataError unless the answer begins where `part` ends, in the file that is meant."""
    said = answer.headers.get("Content-Range", "nothing")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said.strip())
    if (
        found is None
        or int(found[1]) != part.size
        or (expected.size is not None and found[3] not in ("*", str(expected.size)))
    ):
        wanted = f"bytes {part.size}-"
        raise DataError(
            f"{answer.url} was asked for {wanted} and answers with {said}, which is not used. "
            f"Remove {part.part_path} to begin anew."
        )


def _check_whole(url: str, part: PartFile, expected: Expected) -> None:
    if expected.size is not None and part.size != expected.size:
        raise TryAgainError(f"ended after {part.size:,} of {expected.size:,} bytes")
    if part.md5 == expected.md5:
        return
    name = f", which is {expected.known[part.md5]}" if part.md5 in expected.known else ""
    said = f"the MD5 is {part.md5}{name}, the right one is {expected.md5}"
    was_resumed = part.is_resumed
    part.discard()
    if was_resumed:  # of two versions, or damaged on the disk
        raise _MixedUpError(said)
    raise DataError(
        f"{url} serves another file: {said}. It was not kept; take the file from another place."
    )


def _judge_refusal(url: str, error: urllib.error.HTTPError, part: PartFile) -> None:
    """Raise what the status calls for; return where `part` may be whole already."""
    said = f"answers {error.code} {error.reason}"
    if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part.size:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", "").strip())
        if total is not None and int(total[1]) == part.size:
            part.is_resumed = True
            return
        part.discard()
        raise TryAgainError(f"{said}: what came before is of another file")
    if error.code in _WORTH_RETRYING:
        raise TryAgainError(said, asked_wait_s(error.headers))
    raise DataError(
        f"{url} {said}. Check the address; PCam's own is https://zenodo.org/records/2546921."
    )


def _strong_etag(answer: _Answer) -> str | None:
    """Return the ETag, unless it is weak: that names several byte sequences (RFC 9110, 13.1.5)."""
    etag = answer.headers.get("ETag", "").strip()
    return etag if etag.startswith('"') else None


@contextmanager
def _failures_named() -> Iterator[None]:
    """Turn what the network does into TryAgainError; a false certificate into DataError."""
    try:
        yield
    except (OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DataError(
                f"the server cannot prove who it is: {cause.verify_message}. Nothing was sent to "
                "it. Check the address, and the clock and the certificates of this machine."
            ) from error
        raise TryAgainError(f"{type(cause).__name__}: {cause}") from error
