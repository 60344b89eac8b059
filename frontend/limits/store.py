"""What every store of buckets does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from frontend.limits.buckets import Rule
from frontend.limits.gcra import Decision


class Settler(Protocol):
    async def settle(
        self, reservation: Reservation, num_tokens: int, num_requests: int = 1
    ) -> None:
        """End a request that used so many tokens; a reservation calls it, once.

        Goes on when who waits for it is cancelled. Where the store cannot be reached nothing is
        raised: what was taken comes back by itself.

        Args:
            num_requests: 0: it was none.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Reservation:
    """What an admitted request has taken, until it is settled."""

    store: Settler
    rules: Sequence[Rule]
    num_tokens: int
    place: str = ""  # its name in buckets of places, where they are told apart
    is_settled: bool = False

    async def settle(self, num_tokens: int) -> None:
        """Give back what was not used, or take what was used beyond; only the first call does."""
        await self._settle(num_tokens)

    async def cancel(self) -> None:
        """Give everything back, as if it had never been asked for; instead of `settle`."""
        await self._settle(0, num_requests=0)

    async def _settle(self, num_tokens: int, num_requests: int = 1) -> None:
        if not self.is_settled:
            self.is_settled = True
            await self.store.settle(self, num_tokens, num_requests)


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer of a store."""

    decision: Decision
    reservation: Reservation | None = None  # None: refused, or nothing was asked for


class LimitStore(Protocol):
    """One worker process' way to buckets that others may share."""

    async def open(self) -> None:
        """Raises LimitsUnavailable when it cannot be."""
        ...

    async def close(self) -> None: ...

    async def acquire(
        self, rules: Sequence[Rule], num_tokens: int, num_requests: int = 1
    ) -> Admission:
        """Take a request from all buckets in one atomic step, or from none.

        Args:
            rules: no two of one name.
            num_tokens: of the prompt, and the most of the answer.
            num_requests: 0 to see how the buckets stand, with 0 tokens.

        Cancelled in between, it gives back what it has taken.

        Raises:
            LimitsUnavailable: it cannot be decided.
        """
        ...

    def health(self) -> str:
        """For people: "ok", or what is wrong and what is done about it."""
        ...
