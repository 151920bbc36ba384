"""Models by their Hub ids, out of a local cache and from nowhere else."""

import json
import shutil

import pytest

from ssdfast import hub, models
from ssdfast.config import ProblemsConfig, PromptConfig, SampleConfig, SampleExecution
from ssdfast.manifest import read_manifest
from ssdfast.sampling.runner import sample

from . import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with the model some/model, as hf download leaves it."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    repository = tmp_path / "cache" / "models--some--model"
    tiny.save_model(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository


def test_a_hub_id_is_its_snapshot_and_a_path_stays_a_path(cache, tmp_path):
    snapshot = cache / "snapshots" / COMMIT
    assert hub.local_path("some/model") == hub.local_path(f"some/model@{COMMIT}") == snapshot
    assert hub.local_path(str(tmp_path / "there")) == tmp_path / "there"
    assert hub.revision_of(snapshot / "config.json") == ("some/model", COMMIT)
    assert hub.revision_of(tmp_path) is None
    assert models.load("some/model", "float32").vocabulary == tiny.VOCABULARY


def test_what_the_cache_lacks_is_named_with_the_command_that_gets_it(cache):
    with pytest.raises(ValueError, match="hf download no/such first"):
        models.model_info("no/such")
    with pytest.raises(ValueError, match=r"at v2: .* hf download some/model --revision v2 first"):
        models.model_info("some/model@v2")


def test_pickled_weights_of_the_cache_are_refused(cache):
    snapshot = cache / "snapshots" / COMMIT
    shutil.move(snapshot / "model.safetensors", snapshot / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"it has no model\.safetensors"):
        models.load("some/model", "float32")


def test_the_manifest_records_the_revision(cache, tmp_path):
    (tmp_path / "asked.jsonl").write_text(json.dumps({"question": "word1 +", "answer": "1"}) + "\n")
    (tmp_path / "chat.jinja").write_text("{% for m in messages %}{{ m.content }} {% endfor %}")
    config = SampleConfig(
        model="some/model",
        problems=ProblemsConfig(sources=(str(tmp_path / "asked.jsonl"),)),
        prompt=PromptConfig(instruction="{question}", chat_template=str(tmp_path / "chat.jinja")),
        max_new_tokens=4,
    )
    sample(config, tmp_path / "out", SampleExecution())
    manifest = read_manifest(tmp_path / "out")
    assert manifest.hub_revisions == {"some/model": COMMIT}
    assert any(COMMIT in name for name in manifest.inputs)
