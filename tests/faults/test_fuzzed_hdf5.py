"""HDF5 files mutated by a fuzzer: no traceback, no hang, no crash, no wrong answer."""

import numpy as np
import pytest
from hdf5_mutations import Reader, mutate, originals

from ml_core.data.versions.digests import digest_file
from ml_core.data.versions.manifest import MANIFEST_NAME, Manifest

pytestmark = pytest.mark.faults


@pytest.fixture
def reader():
    found = Reader()
    yield found
    found.close()


def has_checksums(storage, version):
    """Whether every byte that decides a value is under a checksum of HDF5's own."""
    return version == "latest" and "checksums" in storage


def test_a_mutated_file_is_read_as_written_or_refused_in_words(tmp_path, reader, draws, fault):
    """Where HDF5 has no checksum only a manifest can tell; that it does is the next test's."""
    fuzz = fault(7, "HDF5 mutated by a fuzzer: no traceback, hang or crash")
    truth = fault(7, "HDF5 mutated by a fuzzer, checksums in the file: no wrong answer")
    sources = originals(tmp_path)
    rng = np.random.default_rng(6)
    for number in range(draws(500, 100)):
        kind = list(sources)[number % len(sources)]
        path = tmp_path / f"x{number}.h5"
        path.write_bytes(mutate(sources[kind], rng))
        outcome, details = reader.read(path)
        case = f"mutant {number} of {kind}"
        if outcome in ("died", "hung", "escaped"):
            fuzz.lost(case, f"{outcome} {details}")
        elif outcome == "refused" and str(path) not in details:
            fuzz.lost(case, f"the file is not named: {details}")
        else:
            fuzz.held(case)
        if has_checksums(*kind):
            with truth.case(case):
                assert outcome != "other", details
        path.unlink()


def test_a_manifest_lets_no_mutated_value_through(tmp_path, reader, draws, fault):
    """Whatever the storage: bytes may differ where the values do not, values may not."""
    fuzz = fault(7, "HDF5 mutated by a fuzzer, beside a manifest: no wrong answer")
    sources = originals(tmp_path)
    for kind, content in sources.items():
        path = tmp_path / f"of {kind}" / "x.h5"
        path.parent.mkdir()
        path.write_bytes(content)
        Manifest({path.name: digest_file(path)}).save(path.with_name(MANIFEST_NAME))
        assert reader.read(path, as_recorded=True)[0] == "same"
    rng = np.random.default_rng(7)
    for number in range(draws(500, 100)):
        kind = list(sources)[number % len(sources)]
        path = tmp_path / f"of {kind}" / "x.h5"
        path.unlink()
        path.write_bytes(mutate(sources[kind], rng))
        outcome, details = reader.read(path, as_recorded=True)
        with fuzz.case(f"mutant {number} of {kind}"):
            assert outcome in ("same", "refused"), f"{outcome} {details}"


def test_without_the_check_of_the_index_a_mutated_file_kills_its_reader(
    tmp_path, reader, fault, monkeypatch
):
    """The negative control: HDF5 is shown the chunk that its index says is 2 bytes long."""
    control = fault(24, "HDF5's index of chunks not checked: its reader dies")
    content = originals(tmp_path)["checksums", "earliest"]
    size = (5 * 8 * 8 * 3 + 4).to_bytes(4, "little")
    at = content.index(size, content.index(b"TREE", 1000))
    path = tmp_path / "x.h5"
    path.write_bytes(content[:at] + (2).to_bytes(4, "little") + content[at + 4 :])
    assert reader.read(path)[0] == "refused"
    reader.close()
    monkeypatch.setenv("ML_CORE_TEST_UNCHECKED_INDEX", "1")
    outcome, details = reader.read(path)
    with control.case("a chunk of 2 bytes with a checksum of 4"):
        assert outcome == "died", details
