"""Conversations and background runs of /v1/responses."""
