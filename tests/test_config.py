"""The configuration: what is read, what is refused, and with which words."""

import copy
import inspect
import random
import re
from pathlib import Path

import pytest
import yaml

import ml_core
from ml_core.config import (
    BEST_METRICS,
    Config,
    Section,
    config_schema,
    load_config,
)
from ml_core.config_problems import section_variants
from ml_core.errors import ConfigError
from ml_core.solver.optim import OPTIMIZERS
from ml_core.solver.trainer import LOGGED_METRICS

COURSE_YAML = """\
experiment_name: "pcam_mlp_baseline"
seed: 7
data:
  dataset_type: "pcam"
  data_path: "../data/pcam"
  input_shape: [3, 96, 96]
  batch_size: 32
  num_workers: 2
model:
  hidden_units: [128, 64]
  dropout_rate: 0.3
  num_classes: 2
training:
  epochs: 5
  learning_rate: 1e-3
  save_dir: "./experiments/results"
"""
MINIMAL = {"experiment_name": "tiny", "data": {"data_path": "pcam"}}


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a config file, from text, bytes or a mapping."""

    def write_config(content: str | bytes | dict, name: str = "config.yaml") -> Path:
        path = tmp_path / name
        if isinstance(content, dict):
            content = yaml.safe_dump(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_config


@pytest.fixture
def refusal(write):
    """Return a function that gives the message with which a config is refused."""

    def message_of(content: str | bytes | dict, *overrides: str) -> str:
        with pytest.raises(ConfigError) as caught:
            Config.load(write(content), overrides)
        return str(caught.value)

    return message_of


def minimal_with(dotted: str, value: object) -> dict:
    """Return the smallest valid config with one key put in."""
    raw = copy.deepcopy(MINIMAL)
    *sections, key = dotted.split(".")
    inner = raw
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[key] = value
    return raw


# ---- what is read ------------------------------------------------------------------------------


def test_the_courses_own_yaml_loads_with_its_keys_where_they_belong(write, tmp_path):
    config = Config.load(write(COURSE_YAML))
    assert config.experiment_name == "pcam_mlp_baseline"
    assert config.seed == 7
    assert config.data.data_path == tmp_path.parent / "data/pcam"
    assert (config.data.batch_size, config.data.num_workers) == (32, 2)
    assert config.model.name == "mlp"
    assert (config.model.hidden_units, config.model.dropout_rate) == ((128, 64), 0.3)
    assert config.training.epochs == 5
    assert (config.optimizer.name, config.optimizer.lr) == ("adamw", 1e-3)
    assert config.output_dir == tmp_path / "experiments/results"


def test_load_config_gives_the_plain_dict_as_written(write):
    raw = load_config(str(write(COURSE_YAML)))
    assert raw["data"]["data_path"] == "../data/pcam"
    assert raw["training"]["save_dir"] == "./experiments/results"
    assert type(raw) is dict


def test_relative_paths_are_relative_to_the_file_wherever_the_command_is_typed(
    write, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    config = Config.load(write(minimal_with("tracking.mlflow_uri", "sqlite:///mlf/all.db")))
    assert config.data.data_path == tmp_path / "pcam"
    assert config.output_dir == tmp_path / "runs"
    assert config.tracking.mlflow_uri == f"sqlite:///{tmp_path}/mlf/all.db"


def test_paths_given_with_set_are_relative_to_where_the_command_is_typed(
    write, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    overrides = (
        "data.data_path=mine", "data.local_copy=copy", "output_dir=out",
        "tracking.mlflow_uri=sqlite:///m.db",
    )  # fmt: skip
    config = Config.load(write(MINIMAL), overrides)
    assert config.data.data_path == elsewhere / "mine"
    assert config.data.local_copy == elsewhere / "copy"
    assert config.output_dir == elsewhere / "out"
    assert config.tracking.mlflow_uri == f"sqlite:///{elsewhere}/m.db"
    assert Config.load(write(MINIMAL), ["training.save_dir=s"]).output_dir == elsewhere / "s"


def test_absolute_paths_and_home_are_kept(write, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/mnt/someone")
    config = Config.load(write(minimal_with("data.data_path", "~/pcam")), ["output_dir=/scratch"])
    assert config.data.data_path == Path("/mnt/someone/pcam")
    assert config.output_dir == Path("/scratch")


def test_an_mlflow_server_is_not_taken_for_a_path(write):
    uri = "http://127.0.0.1:5000"
    assert Config.load(write(minimal_with("tracking.mlflow_uri", uri))).tracking.mlflow_uri == uri


def test_yaml_merge_keys_work(write):
    text = "experiment_name: a\ndata: &d {data_path: x}\noptimizer: {<<: {lr: 0.5}, name: sgd}\n"
    assert Config.load(write(text)).optimizer.lr == 0.5


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"seeds": [3, 1, 2**62]},
        {"model": {"name": "cnn", "widths": [8, 16], "normalization": "none"}},
        {"optimizer": {"name": "sgd", "lr": 1e-5, "momentum": 0.0}},
        {"optimizer": {"name": "adam", "betas": [0.8, 0.99]}},
        {"scheduler": {"name": "one_cycle"}},
        {
            "scheduler": {"name": "step", "gamma": 0.3},
            "training": {"epochs": 3, "device": "cuda:1"},
        },
        {"scheduler": {"name": "plateau", "patience": 0}, "tracking": {"tensorboard": False}},
        {"experiment_name": "123", "data": {"data_path": "a: b # c\u00e9", "max_patches": 10}},
        {"tracking": {"mlflow_uri": "sqlite:///m.db"}, "output_dir": "on"},
    ],
)
def test_the_dumped_yaml_loads_to_an_equal_config_from_any_folder(write, tmp_path, sections):
    config = Config.load(write({**MINIMAL, **sections}))
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.yaml").write_text(config.dump_yaml(), encoding="utf-8")
    assert Config.load(other / "config.yaml") == config


def test_seeds_replace_the_seed(write):
    assert Config.load(write(MINIMAL)).all_seeds == (42,)
    assert Config.load(write(minimal_with("seed", 5))).all_seeds == (5,)
    assert Config.load(write(minimal_with("seeds", [3, 1]))).all_seeds == (3, 1)


def test_a_loaded_config_cannot_be_changed(write):
    with pytest.raises(ValueError, match="frozen"):
        Config.load(write(MINIMAL)).seed = 1


# ---- --set -------------------------------------------------------------------------------------


def test_set_reads_its_value_as_yaml_and_the_last_one_wins(write):
    overrides = [
        "training.epochs=3",
        "training.epochs = 4",
        "model.hidden_units=[8, 4]",
        "data.augment.dihedral=false",
        "training.early_stopping_patience=null",
        "optimizer={name: sgd, lr: 0.5}",
        "tracking.mlflow_uri=http://h/?a=b",
    ]
    config = Config.load(write(COURSE_YAML), overrides)
    assert config.training.epochs == 4
    assert config.model.hidden_units == (8, 4)
    assert config.data.augment.dihedral is False
    assert config.training.early_stopping_patience is None
    assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.5)
    assert config.tracking.mlflow_uri == "http://h/?a=b"


def test_set_takes_the_courses_spelling(write):
    config = Config.load(write(COURSE_YAML), ["training.learning_rate=0.25"])
    assert config.optimizer.lr == 0.25


def test_set_fills_a_section_that_is_absent_or_empty(write):
    assert Config.load(write(MINIMAL), ["training.epochs=3"]).training.epochs == 3
    empty = minimal_with("training", None)
    assert Config.load(write(empty), ["training.epochs=3"]).training.epochs == 3


def test_another_variants_name_drops_the_keys_it_lacks_and_keeps_those_it_has(write):
    raw = {**MINIMAL, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.8}}
    config = Config.load(write(raw), ["optimizer.name=adam"])
    assert (config.optimizer.name, config.optimizer.lr) == ("adam", 0.5)
    config = Config.load(write(COURSE_YAML), ["model.name=cnn"])
    assert (config.model.name, config.model.dropout_rate) == ("cnn", 0.3)


def test_another_variants_name_does_not_hide_a_misspelt_key(refusal):
    raw = {**MINIMAL, "optimizer": {"name": "sgd", "momentun": 0.8}}
    assert "optimizer.momentun: unknown key" in refusal(raw, "optimizer.name=adam")


@pytest.mark.parametrize("override", ["epochs", "=3", "training.=3", "training..epochs=3", ""])
def test_set_without_key_or_value_says_the_form(refusal, override):
    assert f"--set {override!r} is not of the form key.subkey=value." == refusal(MINIMAL, override)


def test_set_refuses_what_is_not_yaml_and_what_has_no_keys(refusal):
    assert "--set 'seed=[1': the value is not valid YAML" in refusal(MINIMAL, "seed=[1")
    assert "2024-13-01" in refusal(MINIMAL, "seed=2024-13-01")
    assert "nested too deeply" in refusal(MINIMAL, "seed=" + "[" * 1000)
    message = refusal(MINIMAL, "data.data_path.x=3")
    assert "data_path is" in message and "it must hold keys and values" in message
    assert "training.epoch: unknown key" in refusal(MINIMAL, "training.epoch=3")


def test_set_does_not_hide_a_scalar_in_the_place_of_a_section(refusal):
    assert "training is 5" in refusal(minimal_with("training", 5), "training.epochs=3")


# ---- what is refused ---------------------------------------------------------------------------


def sections_of(section: type[Section], path: tuple[str, ...] = ()):
    """Yield (dotted path, variant name or None, section class) of every section."""
    yield path, section
    for name, field in section.model_fields.items():
        for variant in section_variants(field.annotation).values():
            yield from sections_of(variant, (*path, name))


SECTIONS = list(sections_of(Config))


@pytest.mark.parametrize(
    ("path", "section"), SECTIONS, ids=[section.__name__ for _, section in SECTIONS]
)
def test_an_unknown_key_is_refused_at_every_level_and_the_nearest_is_named(refusal, path, section):
    key = max(section.model_fields, key=len)
    wrong = key[:-2] + key[-1] + key[-2]  # two letters swapped
    assert wrong not in section.model_fields
    raw = copy.deepcopy(MINIMAL)
    inner = raw
    for part in path:
        inner = inner.setdefault(part, {})
    name = section.model_fields.get("name")
    if name is not None:
        inner["name"] = name.annotation.__args__[0]
    inner[wrong] = 1
    message = refusal(raw)
    assert f"{'.'.join((*path, wrong))}: unknown key. Did you mean '{key}'?" in message
    assert f"Allowed: {', '.join(section.model_fields)}." in message


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("training.batch_size", "data.batch_size"),
        ("training.momentum", "optimizer.momentum"),
        ("learning_rate", "training.learning_rate"),
        ("training.learnin_rate", "learning_rate"),
        ("data.seed", "seed"),
    ],
)
def test_a_key_in_the_wrong_section_is_told_where_it_belongs(refusal, wrong, right):
    message = refusal(minimal_with(wrong, 1))
    assert f"{wrong}: unknown key. Did you mean '{right}'?" in message


def test_a_key_of_another_variant_is_unknown(refusal):
    message = refusal(minimal_with("optimizer", {"name": "adamw", "momentum": 0.9}))
    assert "optimizer.momentum: unknown key. Allowed: name, lr, weight_decay, betas." in message


@pytest.mark.parametrize(
    ("dotted", "value", "expected"),
    [
        ("optimizer.name", "admw", "'admw' is not known. Did you mean 'adamw'? Allowed: 'adamw', "),
        ("optimizer.name", None, "optimizer.name: 'None' is not known. Allowed: 'adamw'"),
        ("optimizer.name", ["sgd"], "Did you mean 'sgd'? Allowed: 'adamw', 'adam', 'sgd'."),
        ("optimizer", "sgd", "optimizer: 'sgd'; it must hold keys and values: name, lr"),
        ("training", None, "training: None; it must hold keys and values: epochs"),
        ("model", [1, 2], "model: [1, 2]; it must hold keys and values: name"),
        ("training.best_metric", "val_los", "Did you mean 'val_loss'? Allowed: 'val_roc_auc'"),
        ("training.precision", "fp16", "Allowed: 'auto', 'fp32' or 'bf16'."),
        ("training.device", "gpu", "Allowed: auto, cpu, cuda, cuda:N or mps."),
        ("training.epochs", 0, "training.epochs: Input should be greater than or equal to 1"),
        ("training.epochs", True, "training.epochs: yes and no (true and false) mean nothing"),
        ("optimizer.betas", [0.9, True], "optimizer.betas: yes and no"),
        ("optimizer.betas", [0.9, 1.0], "optimizer.betas.1: Input should be less than 1"),
        ("optimizer.lr", float("inf"), "optimizer.lr: Input should be a finite number"),
        ("optimizer.lr", float("nan"), "optimizer.lr: Input should be a finite number"),
        ("experiment_name", "a/b", "it names a folder"),
        ("experiment_name", "..", "it names a folder"),
        ("seed", -1, "seed: Input should be greater than or equal to 0"),
        ("seed", 2**63, "seed: Input should be less than"),
        ("seeds", [], "seeds: Tuple should have at least 1 item"),
        ("seeds", [1, 2, 1], "repeats a seed"),
        ("data.input_shape", [1, 96, 96], "data.input_shape.0: 1. Allowed: 3."),
        ("data.input_shape", [3, 96, 0], "data.input_shape.2: Input should be greater"),
        ("data.input_shape", [3, 96, 64], "set data.augment.dihedral=false"),
        ("data.data_path", "~nobody-has-this-name/x", "no such home directory"),
        ("model.num_classes", 3, "model.num_classes: 3. Allowed: 2."),
        ("model.hidden_units", [], "model.hidden_units: Tuple should have at least 1 item"),
        ("tracking.mlflow_uri", "sqlite:///", "Allowed: sqlite:///file.db, http://server"),
        ("tracking.mlflow_uri", "mlruns", "Allowed: sqlite:///file.db, http://server"),
        ("scheduler", {"name": "cosine", "warmup_epochs": 10}, "warmup_epochs 10 leaves nothing"),
        ("optimizer", {"name": "sgd", "momentum": 0, "nesterov": True}, "needs optimizer.momentum"),
    ],
)
def test_a_wrong_value_says_where_and_what_is_allowed(refusal, tmp_path, dotted, value, expected):
    message = refusal(minimal_with(dotted, value))
    assert expected in message
    if "home" not in expected:
        assert message.startswith(f"{tmp_path / 'config.yaml'} is not a valid configuration:")


def test_all_problems_are_said_at_once(refusal):
    message = refusal({"experimnt_name": "a", "data": {"batch_size": 0}})
    for problem in ("experiment_name: missing", "data.data_path: missing", "data.batch_size"):
        assert problem in message
    assert "Did you mean 'experiment_name'?" in message


def test_the_course_key_and_ours_may_not_disagree(refusal, write):
    raw = {**MINIMAL, "training": {"learning_rate": 0.1}, "optimizer": {"lr": 0.2}}
    message = refusal(raw)
    assert "training.learning_rate is 0.1 and optimizer.lr is 0.2" in message
    raw["optimizer"]["lr"] = 0.1
    assert Config.load(write(raw)).optimizer.lr == 0.1
    raw = {**MINIMAL, "training": {"save_dir": "a"}, "output_dir": "b"}
    assert "they are the same setting, keep one" in refusal(raw)


@pytest.mark.parametrize("optimizer", ["sgd", [1], 3])
def test_a_course_key_beside_a_section_that_is_none_is_refused(refusal, optimizer):
    raw = {**MINIMAL, "training": {"learning_rate": 0.1}, "optimizer": optimizer}
    assert f"optimizer is {optimizer!r}; it must hold keys and values" in refusal(raw)


def test_a_key_given_twice_is_refused_with_its_line(refusal):
    message = refusal("experiment_name: a\ndata:\n  data_path: x\n  data_path: y\n")
    assert "the key 'data_path' appears twice" in message and "line 4" in message


def test_python_tags_are_refused_and_never_run(refusal, tmp_path):
    planted = tmp_path / "planted"
    for tag in (
        f"!!python/object/apply:os.mkdir ['{planted}']",
        f"!!python/object/new:os.mkdir ['{planted}']",
        "!!python/name:os.system ''",
        "!!python/object:ml_core.config.Config {}",
    ):
        assert "is not valid YAML" in refusal(f"experiment_name: a\nseed: {tag}\n")
    assert not planted.exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "must hold keys and values"),
        (b"# only a comment\n", "must hold keys and values"),
        (b"- a\n- b\n", "must hold keys and values"),
        (b"just words", "must hold keys and values"),
        (b"a: [1, 2\n", "is not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "is not valid YAML"),
        (b"a:\tb: c", "is not valid YAML"),
        (b"? [a]\n: b\n", "is not valid YAML"),
        (b"a: &a {b: *a}\n", "is not valid YAML"),
        (b"a: 2024-13-45\n", "line 1"),
        (b"a: !!int ''\n", "is not valid YAML"),
        (b"a: !!bool perhaps\n", "is not valid YAML"),
        (b"a: !!timestamp soon\n", "is not valid YAML"),
        (b"a: " + b"9" * 5000, "is not valid YAML"),
        (b"a: " + b"[" * 1000, "nested too deeply"),
        (b"\x89PNG\r\n\x1a\n\x00\xff", "cannot be read"),
        (b"a: \x00", "is not valid YAML"),
        ("experiment_name: a".encode("utf-16"), "cannot be read"),
    ],
)
def test_a_file_that_is_no_config_is_refused(refusal, content, expected):
    assert expected in refusal(content)


def test_aliases_that_grow_without_end_do_not_fill_the_memory(refusal):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    text = "experiment_name: a\ndata: {data_path: x}\n" + "\n".join(lines) + "\nseed: *a11\n"
    assert "seed: Input should be a valid integer" in refusal(text)


def test_a_missing_file_names_the_nearest_one_and_a_folder_is_refused(write, tmp_path):
    write(MINIMAL, "pcam_cnn.yaml")
    with pytest.raises(ConfigError, match=r"no config file .*Did you mean 'pcam_cnn\.yaml'"):
        Config.load(tmp_path / "pcam_cnn.yml")
    with pytest.raises(ConfigError, match="there is no config file"):
        Config.load(tmp_path / "nowhere" / "config.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path)


GRAFTS = [
    None, True, -1, 0, 3, 1e400, float("nan"), "", "x", "1e-3", [], [1], [[1]], {}, {"a": 1},
    {1: 2}, {None: 1}, {"name": "cnn"}, {"name": None}, {"name": {}}, "~nobody-is-this", "\0", "\n",
]  # fmt: skip


def mutate(text: str, rng: random.Random) -> bytes:
    """Return `text` with one thing wrong: a byte, a line, or a value anywhere in the tree."""
    kind = rng.randrange(4)
    if kind == 0:
        data = bytearray(text.encode())
        for _ in range(rng.randrange(1, 5)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    if kind == 1:
        lines = text.splitlines()
        line = rng.randrange(len(lines))
        changed = rng.choice([[], [lines[line]] * 2, ["  " + lines[line]], [lines[line][:-3]]])
        return "\n".join([*lines[:line], *changed, *lines[line + 1 :]]).encode()
    if kind == 2:
        token = rng.choice(
            ["{", "[", "&a ", "*a", "!!int ", "!!binary ", "!x ", "<<: ", "? ", "|\n"]
        )
        at = rng.choice([match.end() for match in re.finditer(r": ", text)])
        return (text[:at] + token + text[at:]).encode()
    raw = yaml.safe_load(text)
    inner = raw
    while True:
        key = rng.choice(list(inner))
        if isinstance(inner[key], dict) and rng.random() < 0.8:
            inner = inner[key]
            continue
        inner[rng.choice([key, key, "new_key"])] = rng.choice(GRAFTS)
        return yaml.safe_dump(raw).encode()


def test_whatever_is_in_the_file_it_loads_or_is_a_config_error(write):
    full = yaml.safe_dump(
        yaml.safe_load(COURSE_YAML) | {"optimizer": {"name": "sgd"}, "seeds": [1]}
    )
    rng = random.Random(0)
    loaded = refused = 0
    for number in range(400):
        content = mutate(rng.choice([COURSE_YAML, full]), rng)
        try:
            config = Config.load(write(content))
        except ConfigError as error:
            assert "Error" not in str(error), content  # no jargon of ours or of pydantic
            refused += 1
        except BaseException:
            print(f"mutation {number}: {content!r}")
            raise
        else:
            assert Config.load(write(config.dump_yaml())) == config, content
            loaded += 1
    assert loaded > 40 and refused > 200


def test_own_slices_are_names_with_a_query_each(write):
    slices = {"dark": "brightness < 100", "dark & blurred": "brightness < 100 and focus < 5000"}
    assert Config.load(write({**MINIMAL, "slices": slices})).slices == slices
    path = write(MINIMAL)
    assert Config.load(path, ['slices.dark="brightness < 9"']).slices == {"dark": "brightness < 9"}
    wrong = {
        "[dark]": "must hold names and queries, such as `dark: brightness < 100`",
        "{dark: 3}": "'dark' needs a query",
        "{dark: ' '}": "'dark' needs a query",
        "{'': a > 1}": "'' names no slice",
        f"{{{61 * 'x'}: a > 1}}": "up to 60 characters",
    }
    for text, message in wrong.items():
        with pytest.raises(ConfigError, match=re.escape(message)):
            Config.load(path, [f"slices={text}"])


# ---- the schema, and that every key is read ----------------------------------------------------


def resolve(schema: dict, root: dict) -> list[dict]:
    """Return the object schemas that a property's schema allows."""
    if "$ref" in schema:
        return resolve(root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    options = schema.get("oneOf", schema.get("anyOf", []))
    return [found for option in options for found in resolve(option, root)] or [schema]


def accepts_keys(raw: dict, schema: dict, root: dict) -> bool:
    """Whether the keys of `raw`, and of the sections in it, are those the schema knows."""
    if "properties" not in schema:
        return isinstance(schema.get("additionalProperties"), dict)  # names of the user's own
    properties = schema["properties"]
    if not set(schema.get("required", [])) <= set(raw) <= set(properties):
        return False
    name = properties.get("name", {}).get("const")
    if name is not None and raw.get("name", properties["name"].get("default")) != name:
        return False
    return all(
        any(accepts_keys(value, option, root) for option in resolve(properties[key], root))
        for key, value in raw.items()
        if isinstance(value, dict)
    )


def test_the_schema_accepts_valid_configs_and_refuses_unknown_keys(write):
    schema = config_schema()
    full = yaml.safe_load(Config.load(write(COURSE_YAML)).dump_yaml())
    cnn = {**MINIMAL, "model": {"name": "cnn"}, "scheduler": {"name": "cosine"}}
    for raw in (MINIMAL, yaml.safe_load(COURSE_YAML), full, cnn):
        assert accepts_keys(raw, schema, schema)
    assert not accepts_keys({**MINIMAL, "sede": 1}, schema, schema)
    assert not accepts_keys(minimal_with("optimizer", {"momentum": 0.9}), schema, schema)
    assert not accepts_keys({"experiment_name": "a"}, schema, schema)
    sections = [schema, *schema["$defs"].values()]
    assert all(section["additionalProperties"] is False for section in sections)


def test_every_key_has_a_description_for_the_schema_and_the_docs():
    for path, section in SECTIONS:
        for name, field in section.model_fields.items():
            is_section = bool(section_variants(field.annotation))
            assert field.description or is_section, f"{'.'.join(path)}.{name}"


def test_no_configuration_key_is_read_by_nobody():
    package = Path(ml_core.__file__).parent
    files = [path for path in package.rglob("*.py") if path.name != "config.py"]
    source = "\n".join(path.read_text(encoding="utf-8") for path in files)
    keys = {name for _, section in SECTIONS for name in section.model_fields}
    unread = {key for key in keys if not re.search(rf"\b{key}\b", source)}
    unread -= {"dataset_type"}  # has one allowed value, which the code takes for granted
    for optimizer in OPTIMIZERS.values():  # whose options torch reads
        unread -= set(inspect.signature(optimizer).parameters)
    assert not unread


def test_every_best_metric_is_logged_after_each_epoch():
    assert {name.removeprefix("val_") for name in BEST_METRICS} <= set(LOGGED_METRICS)
