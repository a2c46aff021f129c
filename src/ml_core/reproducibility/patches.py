"""Patches as git writes them: a diff taken apart by file, and the patch that makes a new file."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_BEGINS = re.compile(rb"^(?=diff --git )", re.MULTILINE)
_BINARY_LOOK = 8000  # bytes in which git looks for a NUL (buffer_is_binary in xdiff-interface.c)
# What git writes for the bytes of a name that it must quote (quote.c).
_QUOTED = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


def split_patches(diff: bytes) -> dict[str, bytes]:
    """Return the patch of each file of a diff, by path; no line of content begins as one does."""
    patches = (patch for patch in _BEGINS.split(diff) if patch.startswith(b"diff --git "))
    return {_path_of(patch): patch for patch in patches}


def patch_of_new(top: Path, path: Path) -> bytes:
    """Return the patch by which `git apply` makes the new file `path` of the repository at `top`.

    As `git diff` would write it, but without the index line, and without a process for each file.
    A binary file is named only, a link is its target. Raises OSError for a file that is gone,
    and for what is neither file nor link.
    """
    info = (top / path).lstat()
    if stat.S_ISLNK(info.st_mode):
        mode, content = "120000", os.fsencode((top / path).readlink())
    elif stat.S_ISREG(info.st_mode):
        mode = "100755" if info.st_mode & stat.S_IXUSR else "100644"
        content = (top / path).read_bytes()
    else:
        raise OSError(f"{path} is neither a file nor a link")
    name = os.fsencode(path.as_posix())
    old, new = _quoted(b"a/" + name), _quoted(b"b/" + name)
    head = b"diff --git %s %s\nnew file mode %s\n" % (old, new, mode.encode())
    if b"\0" in content[:_BINARY_LOOK]:
        return head + b"Binary files /dev/null and %s differ\n" % new
    end = b"\t" if b" " in new else b""  # where else would the name end?
    return head + (b"--- /dev/null\n+++ %s%s\n" % (new, end) + _added(content) if content else b"")


def _added(content: bytes) -> bytes:
    """Return the one hunk of a new file."""
    lines = content.split(b"\n")
    if whole := lines[-1] == b"":
        lines.pop()
    count = b"" if len(lines) == 1 else b",%d" % len(lines)
    text = b"".join(b"+%s\n" % line for line in lines)
    end = b"" if whole else b"\\ No newline at end of file\n"
    return b"@@ -0,0 +1%s @@\n" % count + text + end


def _quoted(name: bytes) -> bytes:
    """Return a name as git writes it with its own settings (core.quotePath)."""
    if all(32 <= byte < 127 and byte not in _QUOTED for byte in name):
        return name
    return b'"%s"' % "".join(_escaped(byte) for byte in name).encode()


def _escaped(byte: int) -> str:
    if byte in _QUOTED:
        return f"\\{_QUOTED[byte]}"
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


def _path_of(patch: bytes) -> str:
    """Return the path of ``diff --git a/PATH b/PATH``; without renames both halves are alike."""
    header = patch.split(b"\n", 1)[0].removeprefix(b"diff --git ")
    half = header[: len(header) // 2]
    if half.startswith(b'"'):
        half = re.sub(rb"\\(\d{3}|.)", _unescaped, half[1:-1])
    return half.removeprefix(b"a/").decode(errors="replace")


def _unescaped(found: re.Match[bytes]) -> bytes:
    said = found[1].decode(errors="replace")
    if said.isdecimal():
        return bytes([int(said, 8) & 255])
    return next((bytes([byte]) for byte, letter in _QUOTED.items() if letter == said), found[1])
