"""What a run at a paid endpoint will cost, and what it has cost: requests, tokens, money."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

CHARACTERS_PER_TOKEN = 4
"""Of English text; the estimate before a run, and where an endpoint does not say what it counted."""


def tokens_of(characters: int) -> int:
    """Return about how many tokens a text of so many characters has."""
    return -(-characters // CHARACTERS_PER_TOKEN)


class Bill:
    """Counts requests and tokens, from several threads.

    Args:
        price: of a million tokens; None if it is not known.
    """

    def __init__(self, price: float | None) -> None:
        self._price, self._lock = price, threading.Lock()
        self.requests = self.tokens = self.failed = 0
        self.estimated = False
        """Whether some of the tokens are estimates."""

    def sent(self) -> None:
        """Count a request, whatever becomes of it."""
        with self._lock:
            self.requests += 1

    def failure(self) -> None:
        """Count a request that failed."""
        with self._lock:
            self.failed += 1

    def answered(self, tokens: int | None, characters: int) -> None:
        """Count an answer's tokens; if it does not say them, estimate them."""
        with self._lock:
            self.estimated |= tokens is None
            self.tokens += tokens_of(characters) if tokens is None else tokens

    def estimate(self, *, texts: int, characters: int, batch_size: int) -> str:
        """Return the line for what is about to be asked."""
        tokens = tokens_of(characters)
        return (
            f"about {-(-texts // batch_size):,} requests, {tokens:,} tokens{self._money(tokens)}, for {texts:,} texts"
        )

    def __str__(self) -> str:
        about = "about " if self.estimated else ""
        failed = f", {self.failed:,} of them failed," if self.failed else ""
        return f"{self.requests:,} requests{failed} {about}{self.tokens:,} tokens{self._money(self.tokens)}"

    def _money(self, tokens: int) -> str:
        return "" if self._price is None else f", {tokens * self._price / 1e6:.4f} at {self._price:g} a million"


class Pace:
    """Spaces requests out evenly, so that neither limit is reached; and holds all of them back when one is refused.

    Args:
        requests_per_minute, tokens_per_minute: the limits; None for none.
        sleep, now: how to wait and to tell the time, in seconds.
    """

    def __init__(
        self,
        requests_per_minute: float | None,
        tokens_per_minute: float | None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests, self._tokens = requests_per_minute, tokens_per_minute
        self._sleep, self._now = sleep, now
        self._lock, self._free_at = threading.Lock(), 0.0

    def wait(self, tokens: int) -> None:
        """Wait until a request of so many tokens may be sent."""
        with self._lock:
            now = self._now()
            start = max(now, self._free_at)
            shares = (
                60 / self._requests if self._requests else 0.0,
                60 * tokens / self._tokens if self._tokens else 0.0,
            )
            self._free_at = start + max(shares)
        if start > now:
            self._sleep(start - now)

    def hold(self, seconds: float) -> None:
        """Let nobody send anything for so long."""
        with self._lock:
            self._free_at = max(self._free_at, self._now() + seconds)
