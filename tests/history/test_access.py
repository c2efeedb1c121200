"""Who may read the history, and who may store events in it."""

import pytest

from services.history.main import create_app
from services.history.settings import HistorySettings
from tests.access import assert_access_is_as_documented


@pytest.mark.no_cover
async def test_access_is_as_documented(settings: HistorySettings) -> None:
    """Every operation: no key, a wrong key, and each scope by itself."""
    await assert_access_is_as_documented(
        lambda api_keys: create_app(settings.model_copy(update={"api_keys": api_keys}))
    )
