import pytest

from .. import tiny


@pytest.fixture
def inputs(tmp_path):
    """A model and traces to train it on."""
    tiny.save_model(tmp_path / "model")
    tiny.save_traces(tmp_path / "traces", 24)
    return tmp_path
