"""Who asks, and what they may do. Knows nothing of how that was proven."""

from __future__ import annotations

import fnmatch
import functools
import re
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from frontend.limits.buckets import LimitSet

EVERY_MODEL = ("*",)


class Scope(StrEnum):
    """What a route may ask for. None has another one in it."""

    INFERENCE = "inference"
    BATCH = "batch"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    METRICS = "metrics"
    ADMIN = "admin"  # keys, and whatever else rules over other tenants


DEFAULT_SCOPES = frozenset({Scope.INFERENCE, Scope.BATCH, Scope.MODELS_READ})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    tenant: str
    key_id: str | None = None  # of an API key
    subject: str | None = None  # of a JWT: its `sub`, unique with its issuer only
    issuer: str | None = None
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    models: tuple[str, ...] = EVERY_MODEL  # globs, see `may_use`
    limits: LimitSet | None = None
    expires_at: float | None = None  # Unix seconds

    @property
    def principal(self) -> str:
        """Whom limits and usage are counted for, of a tenant; empty: anybody."""
        return self.key_id or " ".join(filter(None, (self.issuer, self.subject)))

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may(self, scope: Scope | None) -> bool:
        """Whether a route with this scope is open to them; None: it is open to everybody."""
        return scope is None or scope in self.scopes

    def may_use(self, model: str) -> bool:
        """Whether they may use a model, and see that it is there.

        The globs (`*`, `?`, `[abc]`; letters as they are) are held against the whole name that
        clients write: `gemma-*` has the adapter `gemma-2b:sql` in it, `gemma-2b` has not.

        Args:
            model: `name` or `name:adapter`; what "default" stands for, not that word.
        """
        return _matcher(self.models).fullmatch(model) is not None


# Where authentication is off.
ANYBODY = Identity(tenant="default", scopes=frozenset(Scope))

# Where it is on, before they have said who they are.
NOBODY = Identity(tenant="", scopes=frozenset(), models=())

# For whom a task works: set where a request (or a batch's line) comes in, and read where models
# are found by their names, so that no surface can forget to ask.
current_identity: ContextVar[Identity] = ContextVar("current_identity", default=ANYBODY)


@functools.lru_cache(maxsize=4096)
def _matcher(globs: tuple[str, ...]) -> re.Pattern[str]:
    """Of no globs: nothing matches."""
    return re.compile("|".join(map(fnmatch.translate, globs)) or r"(?!)")
