"""The types of all answers, for the OpenAPI description; the encoders write them without objects.

`T | UnsetType` is a field that may be missing, `T | None` one that is there and may be null.
Tests hold what the encoders write to these types.
"""
