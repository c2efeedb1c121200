"""An API key that may do everything, as often as a test likes."""

from shared.access.api_keys import KEY_SCOPES, mint_key

SECRET, ENTRY = mint_key("tests", KEY_SCOPES)
HEADERS = {"x-api-key": SECRET}
