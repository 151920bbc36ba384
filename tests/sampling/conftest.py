"""What the tests of servers share."""

import pytest

from ssdfast.sampling import load_balancer


@pytest.fixture
def short_pauses(monkeypatch):
    """What fails is asked again at once, and without a key."""
    monkeypatch.setattr(load_balancer, "FIRST_PAUSE", 0.004)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
