"""Who may call what, and how often: API keys with scopes, rate limits, passwords."""
