"""Who asks, and what they may do: API keys, JWTs, scopes, models."""
