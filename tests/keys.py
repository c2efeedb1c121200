"""An API key that may do everything, as often as a test likes."""

from shared.access.api_keys import mint_key

SECRET, ENTRY = mint_key("tests", ["predict", "history:read", "history:erase", "admin", "internal"])
HEADERS = {"x-api-key": SECRET}
