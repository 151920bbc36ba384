"""What a probe reads, for the tests that count it."""

import pytest

from ssdfast.probing import baseline_states, model_loading


@pytest.fixture
def forwards(monkeypatch):
    """The paths of the models that read a batch, in order."""
    paths = []
    run = model_loading.forward
    for module in (model_loading, baseline_states):
        monkeypatch.setattr(module, "forward", lambda model, *args: paths.append(model.path) or run(model, *args))
    return paths
