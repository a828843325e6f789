"""Texts that wait for an encoder, and the threads that encode them.

Waiting texts of similar length are encoded together, even if they come from several requests. This does not change the
answers, because a vector does not depend on the batch (docs/decisions/0005-bit-equal-int8.md). The queue is bounded: a
request that does not fit is refused, and told when to try again.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np

from edgeleaf.bundle.encoder import Counted, QueryEncoder, alike, batches
from edgeleaf.errors import EdgeleafError

TOGETHER = 8
"""The most texts in one batch, and how many waiting requests are looked through for them."""
CHARACTERS = 256
"""The most characters in one batch of several texts, with padding: long texts gain nothing from a batch."""
LONGEST_WAIT = 60


class QueueFull(EdgeleafError):
    """Too many texts wait.

    Attributes:
        seconds: in how many seconds there will be room, by estimate.
    """

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


@dataclass(eq=False)
class _Job:
    """Texts of one request, in one batch, the shortest first, and where their vectors go."""

    encoder: QueryEncoder
    texts: Sequence[str]
    done: asyncio.Future[Counted] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, found: Counted | Exception) -> None:
        """Hand over the vectors, or why there are none; in the event loop, where the request may have gone away."""
        if self.done.done():
            return
        if isinstance(found, Counted):
            self.done.set_result(found)
        else:
            self.done.set_exception(found)


class EncodingQueue:
    """Threads that encode waiting texts: one batch of each request in turn.

    Args:
        threads: how many threads.
        waiting: how many texts may wait.
        observe: called after each batch, in the encoding thread, with its number of texts, its seconds, and the seconds
            that the thread was on a processor.
    """

    def __init__(self, *, threads: int, waiting: int, observe: Callable[[int, float, float], None]) -> None:
        self._limit = waiting
        self._observe = observe
        self._requests: deque[deque[_Job]] = deque()
        self._change = threading.Condition()
        self._texts = 0
        self._closing = False
        self._seconds_a_text = 0.005
        self._threads = [threading.Thread(target=self._work, name=f"encoder-{n}", daemon=True) for n in range(threads)]
        for thread in self._threads:
            thread.start()

    @property
    def texts(self) -> int:
        """How many texts wait."""
        return self._texts

    async def encode(self, encoder: QueryEncoder, texts: Sequence[str]) -> Counted:
        """Return what ``encoder.encode_counted(texts)`` returns, for at least one text.

        Raises:
            QueueFull: there is no room for so many texts.
        """
        rows_of = list(batches([len(text) for text in texts], TOGETHER, CHARACTERS))
        jobs = [_Job(encoder, [texts[row] for row in rows]) for rows in rows_of]
        self._put(jobs, len(texts))
        try:
            found = [await job.done for job in jobs]
        except BaseException:  # the client has gone, or a batch failed: the rest is not needed
            self._withdraw(jobs)
            raise
        if len(texts) == 1:
            return found[0]
        order = np.argsort([row for rows in rows_of for row in rows])
        return Counted(
            np.concatenate([part.vectors for part in found])[order],
            np.concatenate([part.tokens for part in found])[order],
            np.concatenate([part.cut for part in found])[order],
        )

    def close(self) -> None:
        """Encode the waiting texts, then end the threads."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        for thread in self._threads:
            thread.join()

    def _put(self, jobs: Sequence[_Job], texts: int) -> None:
        with self._change:
            if self._texts + texts > self._limit:
                seconds = self._texts * self._seconds_a_text / len(self._threads)
                raise QueueFull(
                    f"{self._texts} texts wait for the encoder and {self._limit} may; send these {texts} again later",
                    min(LONGEST_WAIT, max(1, math.ceil(seconds))),
                )
            self._requests.append(deque(jobs))
            self._texts += texts
            self._change.notify(len(jobs))

    def _withdraw(self, jobs: Sequence[_Job]) -> None:
        with self._change:
            for job in jobs:
                if not job.done.cancel() and not job.done.cancelled():
                    job.done.exception()  # seen, so that asyncio does not log it
            for waiting in self._requests:
                if waiting[0] in jobs:  # those that are being encoded are no longer here
                    self._texts -= sum(len(job.texts) for job in waiting)
                    self._requests.remove(waiting)
                    break

    def _work(self) -> None:
        while jobs := self._take():
            texts = [text for job in jobs for text in job.texts]
            begun, ran = time.perf_counter(), time.thread_time()
            try:
                found = jobs[0].encoder.encode_counted(texts)
            except Exception as error:
                # Whose fault it is shows when each is encoded alone.
                _hand_over(jobs, [error] if len(jobs) == 1 else [_encoded(job) for job in jobs])
                continue
            seconds = time.perf_counter() - begun
            self._seconds_a_text += 0.05 * (seconds / len(texts) - self._seconds_a_text)
            self._observe(len(texts), seconds, time.thread_time() - ran)
            starts = accumulate((len(job.texts) for job in jobs), initial=0)
            parts = [slice(start, start + len(job.texts)) for job, start in zip(jobs, starts, strict=False)]
            _hand_over(jobs, [Counted(found.vectors[part], found.tokens[part], found.cut[part]) for part in parts])

    def _take(self) -> list[_Job]:
        """Wait for a job and return it with those that fit into its batch; an empty list once the queue is closed."""
        with self._change:
            while not self._requests:
                if self._closing:
                    return []
                self._change.wait()
            taken = [self._pop(0)]
            at = 0
            while at < min(len(self._requests), TOGETHER):
                if _fit([*taken, self._requests[at][0]]):
                    taken.append(self._pop(at))
                else:
                    at += 1
            return taken

    def _pop(self, at: int) -> _Job:
        """Take a batch of a request, which then goes to the end: a short one does not wait for a long one."""
        jobs = self._requests[at]
        del self._requests[at]
        job = jobs.popleft()
        if jobs:
            self._requests.append(jobs)
        self._texts -= len(job.texts)
        return job


def _fit(jobs: Sequence[_Job]) -> bool:
    """Return whether the texts of some jobs make a batch that is faster than each alone."""
    count = sum(len(job.texts) for job in jobs)
    shortest, longest = min(len(job.texts[0]) for job in jobs), max(len(job.texts[-1]) for job in jobs)
    small = count <= TOGETHER and count * longest <= CHARACTERS
    return small and alike(shortest, longest) and all(job.encoder is jobs[0].encoder for job in jobs)


def _encoded(job: _Job) -> Counted | Exception:
    try:
        return job.encoder.encode_counted(job.texts)
    except Exception as error:
        return error


def _hand_over(jobs: Sequence[_Job], found: Sequence[Counted | Exception]) -> None:
    """Wake the event loop once for all jobs of a batch."""

    def settle() -> None:
        for job, vectors in zip(jobs, found, strict=True):
            job.settle(vectors)

    with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
        jobs[0].done.get_loop().call_soon_threadsafe(settle)
