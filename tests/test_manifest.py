"""The manifest says what made a run, and keeps a continued run to the same inputs."""

import json

import pytest

from ssdfast.manifest import read_manifest, write_manifest


def test_a_changed_input_is_named(tmp_path):
    out, model = tmp_path / "out", tmp_path / "model"
    model.mkdir()
    (model / "weights").write_text("one")
    write_manifest(out, "cpu", 3, [model])
    write_manifest(out, "cpu", 3, [model])
    (model / "weights").write_text("two")
    with pytest.raises(ValueError, match=r"weights has changed since .*out was started"):
        write_manifest(out, "cpu", 3, [model])
    (model / "weights").unlink()
    with pytest.raises(ValueError, match="weights is gone"):
        write_manifest(out, "cpu", 3, [model])


def test_the_manifest_says_what_made_the_results(tmp_path):
    (tmp_path / "weights").write_bytes(b"")
    write_manifest(tmp_path, "cpu", 3, [tmp_path / "weights"])
    manifest = read_manifest(tmp_path)
    assert manifest.seed == 3
    assert manifest.versions["torch"]
    # sha256 of nothing, as published
    assert list(manifest.inputs.values()) == ["e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]


def test_a_broken_manifest_is_named(tmp_path):
    assert read_manifest(tmp_path) is None
    write_manifest(tmp_path, "cpu", 3, [])
    file = tmp_path / "manifest.json"
    whole = file.read_text()
    file.write_text(whole[:-9])
    with pytest.raises(ValueError, match=r"manifest.json is not valid JSON.*--overwrite"):
        read_manifest(tmp_path)
    values = json.loads(whole)
    file.write_text(json.dumps({name: value for name, value in values.items() if name != "seed"}))
    with pytest.raises(ValueError, match=r"manifest.json: seed: .*run the stage again"):
        write_manifest(tmp_path, "cpu", 3, [])
