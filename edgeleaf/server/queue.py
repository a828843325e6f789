"""Texts that wait for an encoder, and the threads that encode them.

Waiting texts of similar length are encoded together, even if they come from several requests. This does not change the
answers, because a vector does not depend on the batch (docs/decisions/0005-bit-equal-int8.md). The queue is bounded: a
request that does not fit is refused, and told when to try again.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np

from edgeleaf.bundle.encoder import Counted, QueryEncoder, alike, batches
from edgeleaf.errors import EdgeleafError

TOGETHER = 8
"""The most texts in one batch; they may come from several requests."""
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
    done: Future[Counted] = field(default_factory=Future)


class EncodingQueue:
    """Threads that encode waiting texts: one batch of each request in turn.

    Args:
        threads: how many threads.
        waiting: how many texts may wait.
        observe: called after each batch, in the encoding thread, with its number of texts and its seconds.
    """

    def __init__(self, *, threads: int, waiting: int, observe: Callable[[int, float], None]) -> None:
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
        rows_of = list(batches([len(text) for text in texts], TOGETHER))
        jobs = [_Job(encoder, [texts[row] for row in rows]) for rows in rows_of]
        self._put(jobs, len(texts))
        try:
            found = [await asyncio.wrap_future(job.done) for job in jobs]
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
                job.done.cancel()
            for waiting in self._requests:
                if waiting[0] in jobs:
                    self._texts -= sum(len(job.texts) for job in waiting)
                    self._requests.remove(waiting)
                    break

    def _work(self) -> None:
        while jobs := self._take():
            texts = [text for job in jobs for text in job.texts]
            begun = time.perf_counter()
            try:
                found = jobs[0].encoder.encode_counted(texts)
            except Exception as error:
                if len(jobs) == 1:
                    jobs[0].done.set_exception(error)
                else:  # whose fault it is shows when each is encoded alone
                    self._one_by_one(jobs)
                continue
            seconds = time.perf_counter() - begun
            self._seconds_a_text += 0.05 * (seconds / len(texts) - self._seconds_a_text)
            self._observe(len(texts), seconds)
            start = 0
            for job in jobs:
                here = slice(start, start + len(job.texts))
                job.done.set_result(Counted(found.vectors[here], found.tokens[here], found.cut[here]))
                start = here.stop

    @staticmethod
    def _one_by_one(jobs: Sequence[_Job]) -> None:
        for job in jobs:
            try:
                job.done.set_result(job.encoder.encode_counted(job.texts))
            except Exception as error:
                job.done.set_exception(error)

    def _take(self) -> list[_Job]:
        """Wait for a job and return it with those that fit into its batch; an empty list once the queue is closed."""
        with self._change:
            while True:
                while not self._requests:
                    if self._closing:
                        return []
                    self._change.wait()
                taken: list[_Job] = []
                count = 0
                while self._requests and (not taken or self._fits(taken[0], count)):
                    job = self._pop()
                    if job.done.set_running_or_notify_cancel():
                        taken.append(job)
                        count += len(job.texts)
                if taken:
                    return taken

    def _pop(self) -> _Job:
        """Take a batch of the first request, which then goes to the end: a short one does not wait for a long one."""
        jobs = self._requests.popleft()
        job = jobs.popleft()
        if jobs:
            self._requests.append(jobs)
        self._texts -= len(job.texts)
        return job

    def _fits(self, first: _Job, count: int) -> bool:
        job = self._requests[0][0]
        if job.encoder is not first.encoder or count + len(job.texts) > TOGETHER:
            return False
        shortest, longest = (end([first.texts[at], job.texts[at]], key=len) for end, at in ((min, 0), (max, -1)))
        return alike(len(shortest), len(longest))
