"""`ml-core benchmark` on a real, tiny training: what it prints, writes and refuses."""

import gzip
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from fabricated_benchmark import benchmark as fabricated
from fabricated_benchmark import end_to_end
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.config import Config
from ml_core.errors import ConfigError, RunError
from ml_core.pipeline import benchmark as stage
from ml_core.pipeline.benchmark import benchmark, table_of
from ml_core.pipeline.benchmarking import measure_all
from ml_core.pipeline.benchmarking.files import BenchmarkDir, load_benchmark
from ml_core.pipeline.benchmarking.measure_all import Effort

FILES = ["benchmark.json", "config.yaml", "profile", "throughput.png", "time.png"]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    data = write_tiny_pcam(folder / "data")
    return Config.load(write_config(folder / "config.yaml", data, model={"hidden_units": [4]}))


@pytest.fixture(scope="module")
def measured(config):
    """A whole quick benchmark, and what was printed."""
    lines = []
    patch = pytest.MonkeyPatch()
    patch.setattr(
        stage, "console", lambda: SimpleNamespace(print=lambda text, **_: lines.append(text))
    )
    result = benchmark(
        config, quick=True, profile=True, seconds=0.05, command="ml-core benchmark c"
    )
    patch.undo()
    return SimpleNamespace(result=result, printed="\n".join(lines))


def test_a_benchmark_leaves_one_folder_and_nothing_else(config, measured):
    runs = config.output_dir / config.experiment_name
    [folder] = runs.iterdir()
    assert str(folder) == measured.result["folder"]
    assert folder.name.startswith("benchmark-")
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert Config.load(folder / "config.yaml").data.batch_size == 32
    assert [path.name for path in config.output_dir.iterdir()] == [config.experiment_name]


def test_what_was_measured_is_read_back_as_it_was(measured):
    found = load_benchmark(Path(measured.result["folder"]))
    assert found.command == "ml-core benchmark c"
    assert found.settings["batch_size"] == 32
    assert found.data["layout"] == "contiguous"
    assert found.data["num_bytes"] == (96 + 64) * 96 * 96 * 3
    assert 0 in found.reading.by_workers  # a number again, which JSON had made a word
    assert [each.work for each in found.computing] == ["forward", "train step"]
    assert [at.batch_size for at in found.computing[1].at] == [1, 32, 64]
    assert found.verdict.sentence == measured.result["sentence"]
    assert found.machine["load"] >= 0


def test_the_table_and_the_sentence_are_printed(measured):
    for block in ("read, from", "forward, batches of", "train step, batches of", "end to end over"):
        assert block in measured.printed
    assert measured.result["sentence"] in measured.printed
    assert "bound" in measured.result["sentence"]


def test_the_profile_is_a_trace_and_a_table(measured):
    folder = Path(measured.result["folder"])
    trace = json.loads(gzip.decompress((folder / "profile" / "trace.json.gz").read_bytes()))
    assert any(event.get("name") == "aten::addmm" for event in trace["traceEvents"])
    summary = (folder / "profile" / "summary.txt").read_text()
    assert "linear layer (aten::addmm)" in summary
    assert summary.rstrip() in measured.printed


def test_several_benchmarks_are_one_table_the_slowest_first(measured, tmp_path, capsys):
    slow = BenchmarkDir(tmp_path / "array" / "benchmark-1")
    slow.path.mkdir(parents=True)
    slow.save(fabricated(end_to_end=end_to_end(training=0.5, in_memory=1)))
    shutil.copytree(measured.result["folder"], tmp_path / "array" / "benchmark-2")
    rows = table_of([tmp_path / "array"])["rows"]
    assert [row["training"] == 0.5 for row in rows] == [True, False]
    assert len(table_of([slow.path, slow.record_path])["rows"]) == 2


def test_a_folder_without_benchmarks_and_a_damaged_one_are_told(tmp_path):
    with pytest.raises(RunError, match=r"holds no benchmark\.json; ml-core benchmark CONFIG makes"):
        table_of([tmp_path])
    with pytest.raises(RunError, match="no benchmark was given"):
        table_of([])
    (tmp_path / "benchmark.json").write_text('{"command": 1}')
    with pytest.raises(RunError, match="is not a benchmark that this version can read: command"):
        table_of([tmp_path])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seconds": 0}, "0 seconds for each thing"),
        ({"seconds": float("nan")}, "nan seconds for each thing"),
        ({"sizes": [4, 0]}, "batches of 0 patches cannot be"),
    ],
)
def test_nonsense_is_refused_before_anything_is_measured(config, asked, message):
    with pytest.raises(ConfigError, match=message):
        benchmark(config, **asked)


def test_a_folder_that_is_taken_is_left_alone(config, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "measure_all", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    (tmp_path / "mine").mkdir()
    with pytest.raises(KeyboardInterrupt):
        benchmark(config, out=tmp_path / "mine")
    assert list((tmp_path / "mine").iterdir()) == []
    assert (tmp_path / "mine-2" / "config.yaml").is_file()


def test_the_configs_own_batch_size_is_always_among_those_measured():
    assert Effort(1.0).own_sizes(48) == (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 256, 512)
    assert Effort(1.0, quick=True).own_sizes(64) == (1, 64, 128)
    assert Effort(1.0, sizes=(8, 2)).own_sizes(64) == (2, 8, 64)
    assert Effort(1.0).sizes_of_others("forward", 64) == (1, 64)
    assert Effort(1.0).sizes_of_others("train step", 64) == (64,)
    assert Effort(1.0).sizes_of_others("forward", 1) == (1,)


def test_each_way_to_compute_is_measured_unless_it_shall_be_quick(config, monkeypatch):
    asked = []

    def measure(config, work, variant, sizes, **_):
        asked.append((work, variant, sizes))
        return measure_all.Computing(work, variant, failed="not here")

    monkeypatch.setattr(measure_all, "measure_computing", measure)
    device = measure_all.torch.device("cpu")
    measure_all._measure_ways(config, device, Effort(1.0, quick=True))
    assert len(asked) == 2
    measure_all._measure_ways(config, device, Effort(1.0))
    variants = measure_all.variants_of(config, device)
    assert len(asked) == 2 + 2 * len(variants)
    assert len(asked[2][2]) > len(asked[-1][2]) == 1
