"""A run that shall go on where its bits would be others: refused, or written down."""

import pytest
from tiny_pcam import write_config, write_tiny_pcam

from ml_core.cli import main
from ml_core.config import Config
from ml_core.errors import RunError
from ml_core.pipeline.train import resume, train
from ml_core.runs import RunDir, RunRecord, read_json, write_json


@pytest.fixture
def stopped(tmp_path):
    """A run that stopped after one of two epochs, on a processor that is not this one."""
    config = write_config(tmp_path / "config.yaml", write_tiny_pcam(tmp_path / "data"))
    short = Config.load(config, ["training.epochs=1", "data.on_findings=ignore"])
    run = RunDir.open(train(short, command="test")["runs"][0]["run"])
    text = run.config_path.read_text(encoding="utf-8")
    run.config_path.write_text(text.replace("epochs: 1", "epochs: 2"), encoding="utf-8")
    record = read_json(run.record_path)
    record["status"] = "interrupted"
    record["numerics"]["processor"]["name"] = "Another Processor"
    write_json(run.record_path, record)
    return run


def test_a_run_does_not_go_on_where_its_bits_would_be_others(stopped):
    with pytest.raises(RunError, match="the processor was Another Processor") as refused:
        resume(stopped.path, command="test")
    assert "--elsewhere" in str(refused.value)
    assert RunRecord.load(stopped).status == "interrupted"


def test_a_run_that_goes_on_elsewhere_says_so_for_ever(stopped):
    assert resume(stopped.path, command="test", elsewhere=True)["status"] == "completed"
    record = RunRecord.load(stopped)
    (noted,) = record.numerics["elsewhere"]
    assert noted["step"] == 3
    assert "Another Processor" in noted["changes"][0]
    (finding,) = [each for each in record.findings if each.id == "elsewhere-3"]
    assert finding.severity == "warning"
    assert "From step 3 on" in finding.message


def test_elsewhere_without_a_run_to_resume_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "config.yaml"), "--elsewhere"])
    assert ended.value.code == 2
    assert "--resume RUN --elsewhere" in capsys.readouterr().err
