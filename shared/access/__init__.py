"""Who may call what, and how often: API keys, scopes, rate limits, passwords."""
