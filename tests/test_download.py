"""Downloads from a server that cuts, lies, refuses and serves something else."""

import datetime as dt
import email.utils
import gzip
import hashlib
import http.server
import multiprocessing
import threading
import time

import numpy as np
import pytest

from ml_core.data.transfer.download import download, unpack
from ml_core.data.transfer.fetch import Expected, fetch
from ml_core.data.transfer.patience import Patience
from ml_core.data.versions.official import OFFICIAL_FILES, OfficialFile
from ml_core.errors import DataError

MIB = 2**20
ETAG = '"version-1"'


def md5(data):
    return hashlib.md5(data).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; `script` holds what to do with each request in turn, then all are served."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {}
        self.script = []
        self.requests = []  # (path, headers)
        self.etag = ETAG

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request, client_address):
        pass  # a client that goes away in the middle is part of the tests


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.requests.append((self.path, dict(self.headers)))
        behave = self.server.script.pop(0) if self.server.script else serve
        behave(self)
        self.close_connection = True

    @property
    def content(self):
        return self.server.files[self.path.strip("/")]

    @property
    def start(self):
        """Where the wanted range begins; 0 when another version than ours is meant."""
        if self.headers.get("If-Range", self.server.etag) != self.server.etag:
            return 0
        return int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1])

    def begin(self, status, body, **headers):
        self.send_response(status)
        said = {"Content-Type": "application/octet-stream", "Content-Length": str(len(body))}
        for name, value in (said | {k.replace("_", "-"): v for k, v in headers.items()}).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


def serve(handler, num_bytes=None, **headers):
    """Answer as a good server does, but for `headers`; send only `num_bytes` of it."""
    if handler.path.strip("/") not in handler.server.files:
        handler.begin(404, b"")
        return
    start, content = handler.start, handler.content
    if start >= len(content):
        handler.begin(416, b"", Content_Range=f"bytes */{len(content)}")
        return
    body = content[start:]
    said = {"ETag": handler.server.etag}
    if start:
        said["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.begin(206 if start else 200, body, **(said | headers))
    handler.wfile.write(body[:num_bytes])


def cut_after(num_bytes):
    return lambda handler: serve(handler, num_bytes)


def with_headers(**headers):
    return lambda handler: serve(handler, **headers)


def ignore_range(handler):
    handler.begin(200, handler.content)
    handler.wfile.write(handler.content)


def answer(status, body=b"", now=None, **headers):
    def behave(handler):
        if now is not None:
            handler.date_time_string = lambda: email.utils.format_datetime(now, usegmt=True)
        handler.begin(status, body, **headers)
        handler.wfile.write(body)

    return behave


def hang_up(handler):
    handler.wfile.close()


def drop_into_silence(handler):
    serve(handler, 1000)
    handler.server.release.wait(20)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        running.release = threading.Event()
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def patience(waits):
    return Patience(num_attempts=4, timeout_s=5, sleep=waits.append, jitter=lambda: 1.0)


CONTENT = np.random.default_rng(0).bytes(3 * MIB + 12345)
EXPECTED = Expected(md5=md5(CONTENT), max_size=4 * MIB, size=len(CONTENT))
UNKNOWN_SIZE = Expected(md5=md5(CONTENT), max_size=4 * MIB)


@pytest.fixture
def get(server, patience, tmp_path):
    """Fetch FILE from the server; return what is in the folder afterwards."""
    server.files["file"] = CONTENT
    (tmp_path / "got").mkdir()

    def get(expected=EXPECTED, name="file"):
        fetch(f"{server.url}/{name}", tmp_path / "got" / "file", expected, patience)
        return (tmp_path / "got" / "file").read_bytes()

    return get


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_fetched_under_its_own_name_by_one_polite_request(server, get, tmp_path):
    assert get() == CONTENT
    assert names(tmp_path / "got") == ["file"]
    ((_, headers),) = server.requests
    assert headers["User-Agent"].startswith("ml-core/") and "Range" not in headers


@pytest.mark.parametrize("expected", [EXPECTED, UNKNOWN_SIZE])
def test_a_connection_cut_again_and_again_is_gone_on_from_where_it_broke(
    server, get, expected, tmp_path
):
    cuts = np.random.default_rng(1).integers(0, 400_000, 12)  # 0 too: not a byte came
    cuts[3:5] = 0
    server.script = [cut_after(int(num)) for num in cuts]
    assert get(expected) == CONTENT
    assert len(server.requests) == 13
    asked = [
        int(headers["Range"][6:-1]) for _, headers in server.requests[1:] if "Range" in headers
    ]
    assert asked == sorted(asked) and asked[-1] == cuts.sum()
    assert all(h["If-Range"] == ETAG for _, h in server.requests if "Range" in h)
    assert names(tmp_path / "got") == ["file"]


def test_what_a_stopped_process_left_is_not_fetched_again(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(CONTENT[: 2 * MIB])
    assert get() == CONTENT
    assert [headers["Range"] for _, headers in server.requests] == [f"bytes={2 * MIB}-"]


@pytest.mark.parametrize("expected", [EXPECTED, UNKNOWN_SIZE])
def test_what_a_process_left_that_was_stopped_before_the_last_step_is_whole(
    server, get, expected, tmp_path
):
    (tmp_path / "got" / "file.part").write_bytes(CONTENT)
    assert get(expected) == CONTENT
    assert len(server.requests) == (0 if expected.size else 1)  # 416 says that this is all
    assert names(tmp_path / "got") == ["file"]


def test_a_server_without_ranges_is_begun_anew(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(CONTENT[:MIB])
    server.script = [ignore_range]
    assert get() == CONTENT


def test_another_version_on_the_server_is_not_put_behind_the_first(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(b"old" * 1000)
    (tmp_path / "got" / "file.part.etag").write_text('"version-0"')
    assert get() == CONTENT
    (request,) = server.requests
    assert request[1]["If-Range"] == '"version-0"'
    assert names(tmp_path / "got") == ["file"]


def test_a_weak_etag_promises_no_bytes_and_is_not_sent(server, get):
    server.etag = 'W/"x"'
    server.script = [cut_after(5)]
    assert get() == CONTENT
    assert "If-Range" not in server.requests[1][1] and "Range" in server.requests[1][1]


def test_a_part_of_other_bytes_is_found_out_and_begun_anew(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(b"x" * MIB)
    assert get() == CONTENT
    assert [h.get("Range") for _, h in server.requests] == [f"bytes={MIB}-", None]


def test_beginning_anew_begins_with_new_patience(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(b"x" * 2 * MIB)
    server.script = [serve, *[cut_after(1000)] * 6]
    assert get() == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(CONTENT + b"more")
    assert get() == CONTENT
    assert [h.get("Range") for _, h in server.requests] == [f"bytes={len(CONTENT) + 4}-", None]


@pytest.mark.parametrize(
    "said",
    [
        f"bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}",
        f"bytes {MIB - 1}-{len(CONTENT) - 1}/{len(CONTENT)}",
        f"bytes {MIB}-{len(CONTENT) - 1}/{len(CONTENT) + 7}",
        "some of it",
        None,
    ],
)
def test_a_range_that_was_not_asked_for_is_never_used(server, get, said, tmp_path):
    part = tmp_path / "got" / "file.part"
    part.write_bytes(CONTENT[:MIB])
    server.script = [with_headers(Content_Range=said)]
    with pytest.raises(DataError, match=rf"asked for bytes {MIB}- and answers with"):
        get()
    assert part.read_bytes() == CONTENT[:MIB]


def test_the_right_length_of_wrong_bytes_is_refused_and_not_kept(server, get, tmp_path):
    server.files["file"] = CONTENT[::-1]
    with pytest.raises(DataError, match=rf"serves another file: the MD5 is {md5(CONTENT[::-1])}"):
        get()
    assert names(tmp_path / "got") == []
    assert len(server.requests) == 1


def test_a_wrong_file_is_named_when_it_is_another_of_the_set(server, get):
    other = CONTENT[::-1]
    server.files["file"] = other
    with pytest.raises(DataError, match=r"which is test_x\.h5\.gz"):
        get(Expected(md5(CONTENT), 4 * MIB, len(CONTENT), known={md5(other): "test_x.h5.gz"}))


def test_a_wrong_file_that_is_cut_too_is_not_fetched_forever(server, get, tmp_path):
    server.files["file"] = CONTENT[::-1]
    server.script = [cut_after(MIB), serve] * 9
    with pytest.raises(DataError, match="serves another file"):
        get()
    assert len(server.requests) == 4
    assert names(tmp_path / "got") == []


@pytest.mark.parametrize("lie", [len(CONTENT) + 100, len(CONTENT) - 100, 0])
def test_a_length_that_cannot_be_right_is_refused_at_once(server, get, lie, tmp_path):
    part = tmp_path / "got" / "file.part"
    part.write_bytes(CONTENT[:MIB])
    server.etag = '"another"'
    (tmp_path / "got" / "file.part.etag").write_text(ETAG)  # so that the whole is sent
    server.script = [with_headers(Content_Length=str(lie))] * 9
    with pytest.raises(DataError, match=rf"offers a file of {lie:,} bytes"):
        get()
    assert len(server.requests) == 1
    assert part.read_bytes() == CONTENT[:MIB]  # what was good before still is


def test_more_promised_than_ever_comes_ends_when_patience_does(server, get, waits):
    server.script = [with_headers(Content_Length=str(len(CONTENT) + 9), Content_Range=None)]
    server.script += [hang_up] * 9
    with pytest.raises(DataError, match=r"4 times in a row"):
        get(UNKNOWN_SIZE)
    assert waits == [1, 2, 4]


def test_without_a_promised_length_the_end_may_be_anywhere(server, get, tmp_path):
    server.script = [
        lambda handler: serve(handler, 1000, Content_Length=None),
        lambda handler: serve(handler, 1000, Content_Length=None),
    ]
    assert get() == CONTENT
    assert len(server.requests) == 3


def test_a_stream_without_end_is_stopped(server, get, tmp_path):
    server.files["file"] = CONTENT * 2
    server.script = [with_headers(Content_Length=None)]
    with pytest.raises(DataError, match=r"sends more than the 4,194,304 bytes there can be"):
        get(UNKNOWN_SIZE)
    assert names(tmp_path / "got") == []


def test_a_login_page_is_not_the_file(server, get, tmp_path):
    server.script = [answer(200, b"<html>Sign in</html>", Content_Type="text/html; charset=utf-8")]
    with pytest.raises(DataError, match=r"web page instead of the file: it asks for a login"):
        get()
    assert names(tmp_path / "got") == []


def test_a_login_page_that_calls_itself_a_file_is_none_either(server, get, tmp_path):
    server.files["file"] = b"<html>Sign in</html>"
    with pytest.raises(DataError, match=r"not gzip-compressed: it starts with b'<html>Sign in"):
        get(Expected("0", 4 * MIB, is_gzip=True))
    assert names(tmp_path / "got") == []


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_final_and_says_where_to_look(server, get, status, waits):
    server.script = [answer(status)]
    with pytest.raises(DataError, match=rf"answers {status} .*Check the address"):
        get()
    assert waits == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again_later(server, get, status, waits):
    server.script = [answer(status)] * 3
    assert get() == CONTENT
    assert waits == [1, 2, 4]


def test_the_server_says_how_long_to_wait(server, get, waits):
    date = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    later = email.utils.format_datetime(date + dt.timedelta(seconds=90), usegmt=True)
    server.script = [
        answer(429, Retry_After="7"),
        answer(503, Retry_After=later, now=date),
        answer(503, Retry_After="soon"),
    ]
    assert get() == CONTENT
    assert waits == [7, 90, 4]


def test_a_server_that_wants_to_be_left_alone_for_long_is(server, get, waits):
    server.script = [answer(429, Retry_After="3601")]
    with pytest.raises(DataError, match=r"asks to come back in 3,601 s"):
        get()
    assert waits == []


def test_waits_grow_to_a_limit_and_differ_between_machines(server, get, patience, tmp_path):
    waits, draws = [], iter([0.0, 1.0] * 4)
    slow = Patience(8, 1.0, 10.0, 600.0, 5, waits.append, lambda: next(draws))
    server.script = [answer(503)] * 9
    with pytest.raises(DataError, match=r"answers 503 .*8 times in a row"):
        fetch(f"{server.url}/file", tmp_path / "f", EXPECTED, slow)
    assert waits == [0.5, 2, 2, 8, 5, 10, 5]


def test_progress_earns_new_patience(server, get, waits):
    server.script = [hang_up, hang_up, cut_after(10)] * 3
    assert get() == CONTENT
    assert waits == [1, 2, 1, 2, 4, 1, 2, 4, 1]


def test_a_server_that_restarts_and_never_ends_is_given_up(server, get):
    server.etag = None
    server.script = [
        lambda handler: (handler.begin(200, handler.content), handler.wfile.write(CONTENT[:MIB]))
    ] * 99
    with pytest.raises(DataError, match=r"cut off after 1,048,576 of .* \(4 times in a row\)"):
        get()


def test_a_server_that_falls_silent_is_asked_for_the_rest(server, get, tmp_path, waits):
    server.script = [drop_into_silence]
    began = time.monotonic()
    fetch(
        f"{server.url}/file", tmp_path / "f", EXPECTED,
        Patience(timeout_s=0.2, sleep=waits.append, jitter=lambda: 0.0),
    )  # fmt: skip
    assert time.monotonic() - began < 4
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert server.requests[1][1]["Range"] == "bytes=1000-"  # what came before is not lost
    assert waits == [0.5]


def test_no_server_at_all_is_a_named_error(tmp_path, patience, server):
    server.server_close()
    with pytest.raises(DataError, match="ConnectionRefusedError"):
        fetch(f"{server.url}/file", tmp_path / "f", EXPECTED, patience)


@pytest.mark.parametrize(
    "url", ["http://example.org/f", "ftp://example.org/f", "file:///etc/passwd", "nonsense", ""]
)
def test_nothing_but_https_is_asked(tmp_path, patience, url):
    with pytest.raises(DataError, match="allowed is https"):
        fetch(url, tmp_path / "f", EXPECTED, patience)


def test_a_password_in_an_address_is_not_shown(tmp_path, patience):
    with pytest.raises(DataError, match=r"the address on example\.org holds") as error:
        fetch("https://me:secret@example.org/f", tmp_path / "f", EXPECTED, patience)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("place", ["http://example.org/f", "ftp://127.0.0.1/f", "file:///f"])
def test_a_redirect_does_not_lead_out_of_https(server, get, place, tmp_path):
    server.script = [answer(302, Location=place)]
    with pytest.raises(DataError, match=r"allowed is https|answers 302"):
        get()
    assert len(server.requests) == 1


def test_a_redirect_keeps_the_range(server, get, tmp_path):
    (tmp_path / "got" / "file.part").write_bytes(CONTENT[:MIB])
    server.script = [answer(302, Location=f"{server.url}/file")]
    assert get(name="elsewhere") == CONTENT
    assert server.requests[1][1]["Range"] == f"bytes={MIB}-"


def test_a_full_disk_is_named_and_what_came_is_kept(server, get, small_disk, patience):
    with pytest.raises(DataError, match=r"file\.part cannot be written: No space left"):
        fetch(f"{server.url}/file", small_disk / "file", EXPECTED, patience)
    assert "file" not in names(small_disk)


# --- a data folder -------------------------------------------------------------------------------

UNPACKED = {
    "x": np.random.default_rng(2).bytes(2 * MIB),
    "y": np.random.default_rng(3).bytes(2000),
    "meta": b"coord_y,coord_x,tumor_patch,center_tumor_patch,wsi\n",
}


def make_official(split="valid", unpacked=UNPACKED):
    """Return the records and the served bytes of a small data set."""
    files, served = [], {}
    for part, data in unpacked.items():
        name = f"{split}_{part}.{'csv' if part == 'meta' else 'h5'}"
        archive_name = name if part == "meta" else f"{name}.gz"
        archive = data if part == "meta" else gzip.compress(data, 1, mtime=0)
        size = None if part == "meta" else len(archive)
        served[archive_name] = archive
        files.append(
            OfficialFile(split, part, name, md5(data), len(data), archive_name, md5(archive), size)
        )
    return files, served


@pytest.fixture
def official(server):
    files, served = make_official()
    server.files |= served
    return files


@pytest.fixture
def pull(server, patience, official, tmp_path):
    def pull(files=None, **options):
        return download(
            tmp_path / "pcam", files or official, patience, base_url=server.url, **options
        )

    return pull


def visible(folder):
    return [name for name in names(folder) if name != ".ml-core.lock"]


def test_a_split_is_fetched_unpacked_and_alone_in_its_folder(pull, tmp_path):
    assert pull().fetched == ("valid_x.h5", "valid_y.h5", "valid_meta.csv")
    folder = tmp_path / "pcam"
    assert visible(folder) == ["valid_meta.csv", "valid_x.h5", "valid_y.h5"]
    assert (folder / "valid_x.h5").read_bytes() == UNPACKED["x"]


def test_what_is_there_and_right_is_not_asked_for(server, pull):
    pull()
    server.requests.clear()
    done = pull()
    assert done.fetched == () and len(done.already_there) == 3 and server.requests == []


def test_archives_are_kept_when_wanted_and_then_serve_again(server, pull, tmp_path):
    pull(keep_archives=True)
    assert "valid_x.h5.gz" in visible(tmp_path / "pcam")
    (tmp_path / "pcam" / "valid_x.h5").unlink()
    server.requests.clear()
    assert pull(keep_archives=True).fetched == ("valid_x.h5",)
    assert server.requests == [] and "valid_x.h5.gz" in visible(tmp_path / "pcam")


def test_files_that_are_there_and_wrong_are_all_named_and_left_alone(server, pull, tmp_path):
    folder = tmp_path / "pcam"
    folder.mkdir()
    (folder / "valid_x.h5").write_bytes(b"mine")
    (folder / "valid_y.h5.gz").write_bytes(b"half")
    with pytest.raises(DataError, match=r"valid_x\.h5, valid_y\.h5\.gz.*left as they are"):
        pull()
    assert (folder / "valid_x.h5").read_bytes() == b"mine" and server.requests == []


def test_a_stopped_download_goes_on_in_the_folder(server, pull, tmp_path):
    server.script = [cut_after(MIB), *[hang_up] * 9]
    with pytest.raises(DataError, match="run this again later"):
        pull()
    assert visible(tmp_path / "pcam") == ["valid_x.h5.gz.part", "valid_x.h5.gz.part.etag"]
    server.script, server.requests[:] = [], []
    pull()
    assert server.requests[0][1]["Range"] == f"bytes={MIB}-"
    assert visible(tmp_path / "pcam") == ["valid_meta.csv", "valid_x.h5", "valid_y.h5"]


def test_leftovers_of_a_killed_unpacking_are_removed(pull, tmp_path):
    folder = tmp_path / "pcam"
    folder.mkdir()
    (folder / ".valid_x.h5.4711.tmp").write_bytes(b"half")
    pull()
    assert visible(folder) == ["valid_meta.csv", "valid_x.h5", "valid_y.h5"]


def test_a_killed_download_goes_on(server, official, patience, tmp_path):
    folder = tmp_path / "pcam"
    release = threading.Event()

    def send_half(handler):
        serve(handler, MIB + 5)
        handler.wfile.flush()
        release.wait(20)

    server.script = [send_half]
    arguments = (folder, official, patience)
    process = multiprocessing.get_context("fork").Process(
        target=download, args=arguments, kwargs={"base_url": server.url}
    )
    process.start()
    part = folder / "valid_x.h5.gz.part"
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size >= MIB) and time.monotonic() < until:
        time.sleep(0.005)
    process.kill()
    process.join()
    release.set()
    download(*arguments, base_url=server.url)
    assert int(server.requests[1][1]["Range"][len("bytes=") : -1]) >= MIB
    assert visible(folder) == ["valid_meta.csv", "valid_x.h5", "valid_y.h5"]


def test_two_downloads_into_one_folder_do_not_meet(server, pull, tmp_path):
    seen = []

    def try_another(handler):
        try:
            pull()
        except DataError as error:
            seen.append(str(error))
        serve(handler)

    server.script = [try_another]
    pull()
    assert len(seen) == 1 and "another process is writing" in seen[0]


def test_too_little_space_is_found_before_anything_is_asked(server, official, small_disk, patience):
    with pytest.raises(DataError, match=r"bytes free, but about 4,1\d\d,\d\d\d are needed"):
        download(small_disk, official, patience, base_url=server.url)
    assert server.requests == [] and visible(small_disk) == []


def test_a_disk_that_fills_while_unpacking_keeps_nothing_half(
    server, small_disk, patience, monkeypatch
):
    files, served = make_official(unpacked={"x": bytes(MIB)})
    server.files |= served
    monkeypatch.setattr("ml_core.data.transfer.download._check_space", lambda *_: None)
    with pytest.raises(DataError, match=r"valid_x\.h5 cannot be written: No space left"):
        download(small_disk, files, patience, base_url=server.url)
    assert visible(small_disk) == ["valid_x.h5.gz"]


def packed(data, tmp_path, **changes):
    """Return an archive of `data` and the record of what it should unpack to."""
    archive = tmp_path / "valid_x.h5.gz"
    archive.write_bytes(data)
    record = {"md5": md5(UNPACKED["x"]), "unpacked_size": len(UNPACKED["x"])} | changes
    return archive, OfficialFile(
        "valid", "x", "valid_x.h5", record["md5"], record["unpacked_size"], archive.name, "0"
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(bytes(60 * MIB)), r"unpacks to more than the 5,242,880 bytes"),
        (gzip.compress(UNPACKED["x"])[:-20], r"is damaged: Compressed file ended"),
        (gzip.compress(UNPACKED["x"])[:-8] + bytes(8), r"is damaged: CRC check failed"),
        (b"\x1f\x8b\x08" + bytes(100), r"is damaged: "),
        (b"<html>", r"is damaged: Not a gzipped file"),
        (gzip.compress(UNPACKED["x"][::-1]), r"unpacks to 2,097,152 bytes with MD5 .*, where"),
        (gzip.compress(b""), r"unpacks to 0 bytes"),
    ],
    ids=["bomb", "cut", "checksum", "damaged", "html", "other bytes", "empty"],
)
def test_an_archive_that_is_not_the_one_leaves_no_file(tmp_path, data, said):
    archive, file = packed(data, tmp_path)
    with pytest.raises(DataError, match=said):
        unpack(archive, tmp_path / "valid_x.h5", file)
    assert names(tmp_path) == ["valid_x.h5.gz"]


def test_a_bomb_is_stopped_long_before_it_is_unpacked(tmp_path, monkeypatch):
    archive, file = packed(gzip.compress(bytes(64 * MIB)), tmp_path)
    taken = []
    plain = gzip.GzipFile.read
    monkeypatch.setattr(gzip.GzipFile, "read", lambda self, n=-1: taken.append(n) or plain(self, n))
    with pytest.raises(DataError, match="unpacks to more"):
        unpack(archive, tmp_path / "valid_x.h5", file)
    assert sum(taken) <= 16 * MIB and min(taken) > 0


def test_the_official_files_are_nine_and_no_two_alike():
    assert len(OFFICIAL_FILES) == 9
    assert (
        len({file.md5 for file in OFFICIAL_FILES} | {f.archive_md5 for f in OFFICIAL_FILES}) == 15
    )
    valid = {file.part: (file.archive_md5, file.md5) for file in OFFICIAL_FILES[3:6]}
    # where PCam's own table has those of test
    assert valid["x"] == ("d5b63470df7cfa627aeec8b9dc0c066e", "81cf9680f1724c40673f10dc88e909b1")
    assert valid["y"] == ("2b85f58b927af9964a4c15b8f7e8f179", "94d8aacc249253159ce2a2e78a86e658")
    assert valid["meta"] == ("67589e00a4a37ec317f2d1932c7502ca",) * 2
    sizes = {file.name: file.unpacked_size for file in OFFICIAL_FILES if file.part == "x"}
    assert sum(sizes.values()) == 327_680 * 96 * 96 * 3
