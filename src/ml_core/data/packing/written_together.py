"""Several files that appear under their names together, once all of them are whole."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ml_core.durable import sync


@contextmanager
def written_together(
    folder: Path, paths: Collection[Path], last: Collection[Path]
) -> Iterator[Mapping[Path, Path]]:
    """Yield for each of `paths`, all in `folder`, another one beside it to write instead.

    When all went well those that were written take their names, and files of `paths` that were not
    written again are removed. `last` are those of `paths` without which the others are not read:
    old ones go first and new ones come last, so that a kill in between leaves some missing but
    never old beside new. Makes the folder. Raises OSError when it cannot be written; the old files
    are then as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    asides = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths}
    try:
        yield asides
        for aside in asides.values():
            if aside.exists():
                sync(aside)
        for path in last:
            path.unlink(missing_ok=True)
        sync(folder)
        for path in sorted(paths, key=lambda path: path in last):
            if asides[path].exists():
                os.replace(asides[path], path)
            else:
                path.unlink(missing_ok=True)
        sync(folder)
    finally:
        for aside in asides.values():
            aside.unlink(missing_ok=True)
