import pytest


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """Headless Chromium, one for all pages."""
    from .reading import opened

    driver = opened(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()
