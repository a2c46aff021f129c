"""What a disk may hold after a power cut, made from the system calls that a process has made.

A file system promises what was fsynced: a file's bytes by an fsync of the file, the names in a
folder by one of the folder. All else may be there, or not, or in part; the states here are those
that file systems are known to leave (Pillai et al., All File Systems Are Not Created Equal, 2014).
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = "trace=openat,close,write,fsync,mkdir,rename,symlink,unlink,unlinkat,rmdir,ftruncate,flock"
_LINE = re.compile(r"(\w+)\((.*)\)\s+= (\d+)")
_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FD = re.compile(r"^\d+")


@dataclass
class File:
    """A file: the bytes that a reader sees, and those that are on the disk for certain."""

    seen: bytes = b""
    synced: bytes = b""
    last_write: int = 0  # where the last write began


@dataclass
class Folder:
    """A folder: the names that a reader sees, those on the disk, and those before the last call."""

    seen: dict[str, Node] = field(default_factory=dict)
    synced: dict[str, Node] = field(default_factory=dict)
    before: dict[str, Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: str


Node = File | Folder | Link


@dataclass(frozen=True)
class Event:
    """A system call: its name, its texts (paths, what was written), descriptor and result."""

    call: str
    texts: tuple[bytes, ...]
    fd: int
    result: int
    flags: str


def read_events(log: Path, *, with_fsync: bool = True) -> list[Event]:
    """Return what `strace -s SIZE` wrote of calls that did not fail, `CALLS` having been traced."""
    events = []
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if found is None or (found[1] == "fsync" and not with_fsync):
            continue
        assert not found[2].endswith("..."), "strace cut a text short"
        texts = tuple(codecs.escape_decode(text)[0] for text in _TEXT.findall(found[2]))
        fd = _FD.match(found[2])
        flags = _TEXT.sub("", found[2])
        events.append(Event(found[1], texts, int(fd[0]) if fd else -1, int(found[3]), flags))
    return events


class Disk:
    """The folder `root` as the events make it; what lies elsewhere is left out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.top = Folder()
        self.marks: list[str] = []  # what the process wrote to the file `marks` beside the folder
        self._open: dict[int, Node | None] = {}

    def apply(self, event: Event) -> None:
        """Do what the call did."""
        paths = [os.fsdecode(text) for text in event.texts]
        match event.call:
            case "openat":
                self._open[event.result] = self._opened(paths[0], event.flags)
            case "close":
                self._open.pop(event.fd, None)
            case "write":
                self._write(event)
            case "ftruncate":
                self._truncate(event)
            case "fsync":
                _sync(self._open.get(event.fd))
            case "mkdir":
                self._enter(paths[0], Folder())
            case "symlink":
                self._enter(paths[1], Link(paths[0]))
            case "unlink" | "rmdir":
                self._enter(paths[0], None)
            case "unlinkat":
                folder = self._open.get(event.fd)
                if isinstance(folder, Folder):
                    folder.before = dict(folder.seen)
                    folder.seen.pop(paths[0], None)
            case "rename":
                node = self._node(paths[0])
                if node is not None:
                    self._enter(paths[0], None)
                    before = self._parent(paths[0])
                    undone = dict(before.before) if before is not None else {}
                    self._enter(paths[1], node)
                    if before is not None and before is self._parent(paths[1]):
                        before.before = undone

    def _opened(self, path: str, flags: str) -> Node | None:
        if path.endswith("/marks"):
            return Link("marks")
        node = self._node(path)
        if node is None and "O_CREAT" in flags:
            node = File()
            self._enter(path, node)
        if isinstance(node, File) and "O_TRUNC" in flags:
            node.seen = b""
        return node

    def _write(self, event: Event) -> None:
        node = self._open.get(event.fd)
        content = event.texts[0][: event.result]
        if isinstance(node, Link):
            self.marks.append(content.decode())
        elif isinstance(node, File):  # every file here is written from its start or appended to
            node.last_write = len(node.seen)
            node.seen += content

    def _truncate(self, event: Event) -> None:
        node = self._open.get(event.fd)
        if isinstance(node, File):
            node.seen = node.seen[: int(event.flags.split(",")[1])]

    def _enter(self, path: str, node: Node | None) -> None:
        folder, name = self._parent(path), Path(path).name
        if folder is not None:
            folder.before = dict(folder.seen)
            folder.seen.pop(name, None)
            if node is not None:
                folder.seen[name] = node

    def _parent(self, path: str) -> Folder | None:
        node = self._node(str(Path(path).parent))
        return node if isinstance(node, Folder) else None

    def _node(self, path: str) -> Node | None:
        try:
            parts = Path(path).relative_to(self.root).parts
        except ValueError:
            return None
        node: Node | None = self.top
        for part in parts:
            node = node.seen.get(part) if isinstance(node, Folder) else None
        return node


def _sync(node: Node | None) -> None:
    if isinstance(node, File):
        node.synced = node.seen
    elif isinstance(node, Folder):
        node.synced = node.before = dict(node.seen)


# How much of the names and of the bytes got to the disk beyond what was synced.
STATES = {
    "everything": ("seen", "seen"),
    "only what was synced": ("synced", "synced"),
    "names without bytes": ("seen", "synced"),
    "names and lengths, zeros for bytes": ("seen", "zeros"),
    "names, and half of the last write": ("seen", "half"),
    "names, and half of the last write, then zeros": ("seen", "half and zeros"),
    "names, and all bytes but the end of each folder's first file": ("seen", "first"),
    "bytes without names": ("synced", "seen"),
    "everything but the last name": ("before", "seen"),
}


def write_state(disk: Disk, state: str, folder: Path) -> None:
    """Make `folder` what the disk holds when the power is cut now."""
    names, content = STATES[state]
    folder.mkdir()
    _write_folder(disk.top, names, content, folder)


def tree_of(disk: Disk, state: str) -> tuple[object, ...]:
    """Return what `write_state` would write, to tell equal states."""
    names, content = STATES[state]
    return tuple(_flat(disk.top, names, content, ""))


def _flat(folder: Folder, names: str, content: str, path: str) -> Iterator[object]:
    for name, node in sorted(_contents(folder, names, content)):
        if isinstance(node, Folder):
            yield path + name
            yield from _flat(node, names, content, f"{path}{name}/")
        else:
            yield path + name, node


def _write_folder(folder: Folder, names: str, content: str, path: Path) -> None:
    for name, node in _contents(folder, names, content):
        if isinstance(node, Folder):
            (path / name).mkdir()
            _write_folder(node, names, content, path / name)
        elif isinstance(node, str):
            (path / name).symlink_to(node)
        else:
            (path / name).write_bytes(node)


def _contents(
    folder: Folder, names: str, content: str
) -> Iterator[tuple[str, Folder | str | bytes]]:
    """Yield each name with the folder, the target of the link, or the bytes of the file."""
    is_first = True
    for name, node in getattr(folder, names).items():
        if isinstance(node, File):
            yield name, _bytes(node, content, is_first=is_first)
            is_first = False
        else:
            yield name, node.target if isinstance(node, Link) else node


def _bytes(file: File, content: str, *, is_first: bool) -> bytes:
    size, kept = len(file.seen), 0
    if file.seen.startswith(file.synced):
        kept = len(file.synced)  # it was appended to
    half = max(kept, (file.last_write + size) // 2)
    match content:
        case "synced":
            return file.synced
        case "zeros":
            return file.seen[:kept].ljust(size, b"\0")
        case "half":
            return file.seen[:half]
        case "half and zeros":
            return file.seen[:half].ljust(size, b"\0")
        case "first" if is_first:
            return file.seen[: max(kept, size - size // 8)].ljust(size, b"\0")
    return file.seen


def states_of(
    events: Sequence[Event], root: Path, start: Sequence[str] = ()
) -> Iterator[tuple[Disk, str, str]]:
    """Yield the disk, a state that differs from those before, and its name, after each event.

    `start` are folders that are on the disk from the beginning.
    """
    disk, seen = Disk(root), set[tuple[object, ...]]()
    for name in start:
        disk.top.seen[name] = disk.top.synced[name] = disk.top.before[name] = Folder()
    for number, event in enumerate(events):
        disk.apply(event)
        for state in STATES:
            tree = (*tree_of(disk, state), tuple(disk.marks))
            if tree not in seen:
                seen.add(tree)
                yield disk, state, f"after call {number} ({event.call}): {state}"
