"""The wire shapes of the administration of API keys, /api/v1/keys."""

from __future__ import annotations

from typing import Annotated

import msgspec

from frontend.access.identity import Scope
from frontend.access.names import MAX_LENGTH, is_name
from frontend.errors import InvalidParameter
from frontend.limits.buckets import LimitSet
from frontend.protocol.limits import NOT_EMPTY, check_limits, entries

MAX_ENTRIES = 100
DAY_S = 86_400
YEARS_S = 100 * 365 * DAY_S


class CreateKeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, NOT_EMPTY]
    tenant: Annotated[str, NOT_EMPTY] = "default"
    scopes: Annotated[list[Scope], entries(0, MAX_ENTRIES)] | None = None  # None: the usual ones
    models: Annotated[list[str], entries(0, MAX_ENTRIES)] | None = None  # None: every model
    limits: LimitSet | None = None
    expires_in_s: Annotated[float, msgspec.Meta(gt=0, le=YEARS_S)] | None = None

    def check(self) -> None:
        """
        Raises:
            InvalidParameter: names the field.
        """
        check_limits(self)
        given = {"name": self.name, "tenant": self.tenant}
        given |= {f"models[{i}]": glob for i, glob in enumerate(self.models or ())}
        for param, text in given.items():
            if not is_name(text):
                raise InvalidParameter(param, "not_a_name", maximum=MAX_LENGTH)


class RotateKeyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    grace_s: Annotated[float, msgspec.Meta(ge=0, le=YEARS_S)] = DAY_S
