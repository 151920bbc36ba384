"""Settings are strict, and what is wrong with them is said in one sentence."""

import pytest
import yaml

from ssdfast import config
from ssdfast.config import PositionClassConfig, ProbeConfig, SamplingParams

MINIMAL = {"baseline": "a", "trained": "b", "traces": [{"name": "x", "path": "c"}]}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"basline": "a"},
            r"probe.yaml: unknown key 'basline' \(allowed here: baseline, trained, traces, eval_sampling",
        ),
        (
            {"eval_sampling": {"temp": 1}},
            r"unknown key 'eval_sampling.temp' \(allowed here: temperature, top_k, top_p\)",
        ),
        ({"traces": [{"name": "x", "pth": "c", "path": "c"}]}, r"key 'traces.0.pth' \(allowed here: name, path\)"),
        ({"train_sampling": {"temperature": -1}}, r"train_sampling.temperature: .*greater than 0 \(got -1\)"),
        ({"top_logprobs": 129}, r"top_logprobs: .* \(got 129\)"),
        ({"traces": []}, r"probe.yaml: traces: .*at least 1"),
        ({"traces": ["=nothing"]}, r"must be NAME=PATH or PATH, got '=nothing'"),
    ],
)
def test_a_wrong_setting_is_named(values, message):
    with pytest.raises(ValueError, match=message):
        config.load(ProbeConfig, MINIMAL | values, "probe.yaml")


def test_a_missing_key_is_named():
    with pytest.raises(ValueError, match=r"probe.yaml: the key 'trained' is missing"):
        config.load(ProbeConfig, {k: v for k, v in MINIMAL.items() if k != "trained"}, "probe.yaml")


def test_what_is_saved_is_what_was_resolved():
    before = config.load(
        ProbeConfig, MINIMAL | {"train_sampling": {"temperature": 1.3}, "lse_temperatures": [0.5]}, "probe.yaml"
    )
    after = config.load(ProbeConfig, yaml.safe_load(config.dump(before)), "config.yaml")
    assert after == before
    assert after.train_sampling == SamplingParams(temperature=1.3)


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        PositionClassConfig().lock_max_tail = 1.0


@pytest.mark.parametrize(("text", "message"), [("- a\n- b", "must hold a mapping"), ("a: [", "is not YAML")])
def test_a_file_that_holds_no_settings_is_named(tmp_path, text, message):
    file = tmp_path / "probe.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=f"probe.yaml {message}"):
        config.read_yaml(file)


def test_no_python_object_is_built_from_a_file(tmp_path):
    file = tmp_path / "probe.yaml"
    file.write_text("baseline: !!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="is not YAML"):
        config.read_yaml(file)


@pytest.mark.parametrize(
    ("text", "name", "path"),
    [
        ("own=runs/a/traces", "own", "runs/a/traces"),
        ("runs/qwen", "qwen", "runs/qwen"),
        ("runs/lr=1e-5/traces/", "traces", "runs/lr=1e-5/traces/"),
    ],
)
def test_a_path_without_a_name_goes_by_its_last_part(text, name, path):
    source = config.load(ProbeConfig, MINIMAL | {"traces": [text]}, "probe.yaml").traces[0]
    assert (source.name, source.path) == (name, path)
