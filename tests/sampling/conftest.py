"""What the tests of servers share."""

import pytest

from ssdfast.sampling import servers


@pytest.fixture
def short_pauses(monkeypatch):
    """What fails is asked again at once, and without a key."""
    monkeypatch.setattr(servers, "FIRST_PAUSE", 0.004)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
