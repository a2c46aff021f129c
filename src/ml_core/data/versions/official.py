"""What PatchCamelyon's official files are: names, MD5s, rows, and where they are served."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ml_core.data.layout import SPLITS, split_paths

Part = Literal["x", "y", "meta"]

ZENODO_RECORD = 2546921
ZENODO_URL = f"https://zenodo.org/records/{ZENODO_RECORD}/files/{{name}}?download=1"

# Patches per split, https://github.com/basveeling/pcam.
NUM_ROWS = {"train": 262_144, "valid": 32_768, "test": 32_768}
# What a row takes: 96 x 96 x 3 pixels, one label; of a meta csv at most about 60 characters.
_ROW_BYTES: dict[Part, int] = {"x": 96 * 96 * 3, "y": 1, "meta": 60}

# (archive, unpacked). The table of checksums in PCam's README has valid and test swapped, to this
# day; these are the right way round, as in torchvision.datasets.PCAM.
_MD5: dict[tuple[str, Part], tuple[str, str]] = {
    ("train", "x"): ("1571f514728f59376b705fc836ff4b63", "01844da899645b4d6f84946d417ba453"),
    ("train", "y"): ("35c2d7259d906cfc8143347bb8e05be7", "0781386bf6c2fb62d58ff18891466aca"),
    ("valid", "x"): ("d5b63470df7cfa627aeec8b9dc0c066e", "81cf9680f1724c40673f10dc88e909b1"),
    ("valid", "y"): ("2b85f58b927af9964a4c15b8f7e8f179", "94d8aacc249253159ce2a2e78a86e658"),
    ("test", "x"): ("d8c2d60d490dbd479f8199bdfa0cf6ec", "2614b2e6717d6356be141d9d6dbfcb7e"),
    ("test", "y"): ("60a7035772fbdb7f34eb86d4420cf66a", "11ed647efe9fe457a4eb45df1dba19ba"),
}
_META_MD5 = {
    "train": "5a3dd671e465cfd74b5b822125e65b0a",
    "valid": "67589e00a4a37ec317f2d1932c7502ca",
    "test": "3455fd69135b66734e1008f3af684566",
}
# Bytes served, from tensorflow_datasets' url_checksums/patch_camelyon.txt.
_ARCHIVE_SIZE: dict[tuple[str, Part], int] = {
    ("train", "x"): 6_421_353_462,
    ("train", "y"): 21_378,
    ("valid", "x"): 805_965_320,
    ("valid", "y"): 3_038,
    ("test", "x"): 800_875_929,
    ("test", "y"): 3_040,
}


@dataclass(frozen=True)
class OfficialFile:
    """One file of a data set: what is served, and what it becomes in the data folder."""

    split: str
    part: Part
    name: str  # in the data folder
    md5: str  # of the file in the data folder
    unpacked_size: int  # bytes, about: of the values alone, without what HDF5 adds
    archive_name: str  # what is served: NAME.gz, or NAME itself where it is not packed
    archive_md5: str
    archive_size: int | None = None  # bytes; None where nobody published it

    @property
    def is_packed(self) -> bool:
        """Whether what is served must be unpacked."""
        return self.archive_name != self.name

    @property
    def max_size(self) -> int:
        """Bytes that no file of this content reaches, however it is chunked."""
        return 2 * self.unpacked_size + 2**20


def _official_file(split: str, part: Part) -> OfficialFile:
    paths = split_paths("", split)
    name = {"x": paths.x, "y": paths.y, "meta": paths.meta}[part].name
    packed = part != "meta"
    archive_md5, md5 = _MD5[split, part] if packed else (_META_MD5[split],) * 2
    return OfficialFile(
        split=split,
        part=part,
        name=name,
        md5=md5,
        unpacked_size=NUM_ROWS[split] * _ROW_BYTES[part],
        archive_name=f"{name}.gz" if packed else name,
        archive_md5=archive_md5,
        archive_size=_ARCHIVE_SIZE.get((split, part)),
    )


_PARTS: tuple[Part, ...] = ("x", "y", "meta")
OFFICIAL_FILES = tuple(_official_file(split, part) for split in SPLITS for part in _PARTS)
