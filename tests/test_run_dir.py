"""Files appear whole or not at all; a run goes on only with the settings and inputs it was begun with."""

import contextlib
import json

import pytest

from ssdfast import run_dir
from ssdfast.config import SamplingParams
from ssdfast.manifest import write_manifest

RESULTS = ("probe", "summary.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    file = tmp_path / "summary.json"
    run_dir.write_text(file, "old")
    with contextlib.suppress(RuntimeError), run_dir.atomic(file) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_is_replaced_rather_than_written_over(tmp_path):
    file, opened_before = tmp_path / "summary.json", tmp_path / "same file"
    run_dir.write_text(file, "old")
    opened_before.hardlink_to(file)
    run_dir.write_text(file, "new")
    assert (file.read_text(), opened_before.read_text()) == ("new", "old")


def test_a_directory_appears_whole(tmp_path):
    target = tmp_path / "checkpoint"
    with contextlib.suppress(RuntimeError), run_dir.atomic_directory(target) as temporary:
        (temporary / "weights").write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with run_dir.atomic_directory(target) as temporary:
        (temporary / "weights").write_text("all")
        assert not target.exists()
    assert (target / "weights").read_text() == "all"


def test_what_a_killed_run_left_is_swept_away_and_nothing_else(tmp_path):
    (tmp_path / ".part-00000.parquet.abc.ssdfast.tmp").write_text("half")
    for name in (".hidden", ".draft.tmp"):
        (tmp_path / name).write_text("kept")
    run_dir.sweep(tmp_path)
    assert {f.name for f in tmp_path.iterdir()} == {".hidden", ".draft.tmp"}


def test_json_is_strict(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        run_dir.write_json(tmp_path / "summary.json", {"mean": float("nan")})


def test_other_settings_are_refused_and_named(tmp_path):
    run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
    (tmp_path / "probe").mkdir()
    run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
    with pytest.raises(ValueError, match=r"other settings \(temperature: 1.0 there, 0.7 here\).*--overwrite"):
        run_dir.claim(tmp_path, SamplingParams(temperature=0.7), RESULTS, overwrite=False)


def test_settings_that_led_to_nothing_may_be_changed(tmp_path):
    run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
    write_manifest(tmp_path, "cpu", 3, [])
    run_dir.claim(tmp_path, SamplingParams(temperature=0.7), RESULTS, overwrite=False)
    assert "0.7" in (tmp_path / "config.yaml").read_text()
    assert not (tmp_path / "manifest.json").exists()


def test_results_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds summary.json but no config.yaml"):
        run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)


def test_overwrite_removes_the_results_alone(tmp_path):
    run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
    (tmp_path / "probe").mkdir()
    (tmp_path / "probe" / "part-00000.parquet").write_text("old")
    (tmp_path / "notes.txt").write_text("mine")
    run_dir.claim(tmp_path, SamplingParams(temperature=0.7), RESULTS, overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["config.yaml", "notes.txt"]
    assert "0.7" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize(("version", "written"), [(None, "before schema versions"), (2, "in schema version 2")])
def test_a_file_of_another_schema_version_is_refused(tmp_path, version, written):
    file = tmp_path / "summary.json"
    run_dir.write_json(file, {"positions": 3})
    values = json.loads(file.read_text())
    assert run_dir.read_json(file) == values == {**run_dir.schema_stamp(), "positions": 3}
    file.write_text(
        json.dumps(
            {name: value for name, value in values.items() if name != "schema_version"}
            | ({"schema_version": version} if version else {})
        )
    )
    with pytest.raises(ValueError, match=f"summary.json was written {written}; this ssdfast reads schema version 1"):
        run_dir.read_json(file)


def test_a_run_of_before_schema_versions_is_not_continued(tmp_path):
    run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
    (tmp_path / "probe").mkdir()
    (tmp_path / run_dir.MANIFEST).write_text('{"inputs": {}}')
    with pytest.raises(ValueError, match="was written before schema versions"):
        run_dir.claim(tmp_path, SamplingParams(), RESULTS, overwrite=False)
