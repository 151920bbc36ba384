"""What a file says is read as written or rejected: repeated keys and seeds, booleans, octal numbers, infinities."""

import math

import pytest

from ssdfast import config
from ssdfast.config import (
    ArmConfig,
    EvalConfig,
    ProbeConfig,
    ProblemsConfig,
    SampleConfig,
    SampleExecution,
    Settings,
    StudyConfig,
    TrainConfig,
    TrainingRunConfig,
)
from ssdfast.evaluation.completions import read
from ssdfast.problems import files

PROBE = "baseline: a\ntrained: b\ntraces: [c]\n"
TRAIN = "model: a\ntraces: b\n"
STUDY = "model: a\narms: [ssd, control]\n"

REJECTED = [
    (TrainingRunConfig, TRAIN + "learning_rate: true", "learning_rate: must be a number or text, not true or false"),
    (TrainingRunConfig, TRAIN + "learning_rate: yes", "learning_rate: .*valid number.* .got 'yes'"),
    (TrainingRunConfig, TRAIN + "learning_rate: .inf", "learning_rate: .*finite number"),
    (TrainingRunConfig, TRAIN + "learning_rate: .nan", "learning_rate: "),
    (TrainingRunConfig, TRAIN + "learning_rate: 1.0e+999", "learning_rate: .*finite number"),
    (TrainingRunConfig, TRAIN + "min_learning_rate: .inf", "min_learning_rate: .*finite number"),
    (TrainingRunConfig, TRAIN + "weight_decay: .nan", "weight_decay: "),
    (TrainingRunConfig, TRAIN + "max_grad_norm: .inf", "max_grad_norm: .*finite number"),
    (TrainingRunConfig, TRAIN + "seed: false", "seed: must be a number"),
    (TrainingRunConfig, TRAIN + "seed: 1:30", "seed: .*valid integer"),
    (TrainingRunConfig, TRAIN + "seed: 0x10", "seed: .*valid integer"),
    (TrainingRunConfig, TRAIN + "seed: 1.5", "seed: .*valid integer"),
    (TrainingRunConfig, TRAIN + "batch_size: on", "batch_size: .*valid integer"),
    (TrainingRunConfig, TRAIN + "train_sampling: {temperature: true}", "train_sampling.temperature: must be a number"),
    (
        TrainingRunConfig,
        TRAIN + "seed: 1\nbatch_size: 2\nseed: 3",
        r"file.yaml is not YAML: line 5: the key 'seed' is rep",
    ),
    (TrainingRunConfig, TRAIN + 'seed: 1\n"seed": 3', r"file.yaml is not YAML: line 4: the key 'seed' is repeated"),
    (ProbeConfig, PROBE + "lse_temperatures: [1.0, true]", "lse_temperatures: must be a number"),
    (ProbeConfig, PROBE + "lse_temperatures: [1.0, .inf]", "lse_temperatures.1: .*finite"),
    (ProbeConfig, PROBE + "lse_temperatures: [1.0, 1]", "the temperature 1.0 is repeated"),
    (ProbeConfig, PROBE + "position_classes: {lock_max_tail: .nan}", "position_classes.lock_max_tail: .*finite"),
    (
        ProbeConfig,
        PROBE + "positions: {stride: 1, stride: 2}",
        "file.yaml is not YAML: line 4: the key 'stride' is repeated",
    ),
    (ProbeConfig, PROBE.replace("[c]", "[x=c, y=./c]"), "the source of traces .* is repeated"),
    (EvalConfig, "sequential: {equivalence_margin: .nan}", "sequential.equivalence_margin: "),
    (EvalConfig, "sampling: {presence_penalty: .inf}", "sampling.presence_penalty: "),
    (EvalConfig, "sweep: {temperature: [.inf]}", "sweep.temperature.0: .*finite"),
    (EvalConfig, "pass_at_k: [true]", "pass_at_k: must be a number"),
    (SampleConfig, "model: a\nproblems: {generator_options: {x: .inf}}", "generator_options.x"),
    (SampleExecution, "price_per_hour: .inf", "price_per_hour: .*finite"),
    (SampleExecution, "server: {read_timeout: .inf}", "server.read_timeout: .*finite"),
    (StudyConfig, STUDY + "seeds: [0, 0]", "the seed 0 is repeated: give each seed once"),
    (StudyConfig, STUDY + 'seeds: [0, "0"]', "the seed 0 is repeated"),
    (StudyConfig, STUDY + "seeds: [false, 1]", "seeds: must be a number"),
    (StudyConfig, STUDY.replace("[ssd,", "[ssd, ssd,"), "the arm 'ssd' is repeated"),
    (StudyConfig, "model: a\narms: {ssd: {seeds: [1, 2, 1]}, control: }", "the seed 1 is repeated"),
    (StudyConfig, "model: a\narms: {control: , ssd: , ssd: ssd-soft}", "the key 'ssd' is repeated"),
    (StudyConfig, "model: a\narms: {control: , ssd: {train_sampling: {top_k: true}}}", "must be a number"),
    (StudyConfig, "model: a\narms: {control: , ssd: {training: {learning_rate: true}}}", "must be a number"),
    (StudyConfig, "model: a\narms: {control: , ssd: {training: {learning_rate: .inf}}}", "finite"),
]
"""The settings, the text of a file, and a pattern of the sentence."""

READ = [
    (TrainingRunConfig, TRAIN + "seed: 010", "seed", 10),
    (TrainingRunConfig, TRAIN + "learning_rate: 5e-6", "learning_rate", 5e-6),
    (TrainingRunConfig, TRAIN + "learning_rate: 1", "learning_rate", 1.0),
    (TrainingRunConfig, TRAIN + "seed: 1_000", "seed", 1000),
    (TrainingRunConfig, TRAIN + "correct_only: on", "correct_only", True),
    (TrainingRunConfig, TRAIN + "offload_optimizer: no", "offload_optimizer", False),
    (TrainingRunConfig, "model: 010\ntraces: 2024-01-01", "traces", "2024-01-01"),
    (TrainingRunConfig, "model: 010\ntraces: 2024-01-01", "model", "010"),
    (TrainingRunConfig, "model: no\ntraces: 1:30", "model", "no"),
    (ProbeConfig, PROBE + "lse_temperatures: [1, 2]", "lse_temperatures", (1.0, 2.0)),
    (ProblemsConfig, "generator_options: {a: true, b: 010}", "generator_options", {"a": True, "b": "010"}),
    (StudyConfig, STUDY + "seeds: [0, 1]", "seeds", (0, 1)),
]


def load(cls: type[Settings], text: str, directory) -> Settings:
    file = directory / "file.yaml"
    file.write_text(text)
    return config.load(cls, config.read_yaml(file), str(file))


@pytest.mark.parametrize(("cls", "text", "sentence"), REJECTED)
def test_what_is_not_plain_is_rejected(tmp_path, cls, text, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        load(cls, text, tmp_path)
    assert type(error.value) is ValueError
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("cls", "text", "name", "value"), READ)
def test_a_value_is_read_as_written(tmp_path, cls, text, name, value):
    settings = load(cls, text, tmp_path)
    assert getattr(settings, name) == value
    assert load(cls, config.dump(settings), tmp_path) == settings, "what is saved is read back"


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan, True])
def test_the_api_takes_no_such_number_either(number):
    with pytest.raises(ValueError, match="learning_rate"):
        TrainConfig(learning_rate=number)
    with pytest.raises(ValueError, match="temperature"):
        ArmConfig(recipe="ssd", train_sampling={"temperature": number})


def test_a_repeated_key_of_a_problem_is_named_with_its_line(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text('{"question": "1+1", "answer": "2"}\n{"question": "2+2", "answer": "3", "answer": "4"}\n')
    with pytest.raises(ValueError, match=r"p.jsonl:2: .*the key 'answer' is repeated"):
        files.load(file, ProblemsConfig())


def test_a_repeated_key_of_a_completion_is_named_with_its_line(tmp_path):
    file = tmp_path / "c.jsonl"
    file.write_text('{"problem_id": "a", "completion": "1", "completion": "2"}\n')
    with pytest.raises(ValueError, match=r"c.jsonl:1: .*the key 'completion' is repeated"):
        list(read(file, {}))


def test_keys_that_a_merge_overrides_are_not_repeated(tmp_path):
    file = tmp_path / "file.yaml"
    file.write_text("train_sampling: &t {temperature: 1.1, top_k: 20}\neval_sampling: {<<: *t, temperature: 1.0}\n")
    assert config.read_yaml(file)["eval_sampling"] == {"temperature": 1.0, "top_k": 20}
