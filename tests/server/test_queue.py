"""Which waiting texts are encoded together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeleaf.bundle.encoder import Counted
from edgeleaf.server.queue import CHARACTERS, TOGETHER, EncodingQueue


class Recorder:
    """An encoder that keeps the batches it gets; the first one waits until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def encode_counted(self, texts: Sequence[str]) -> Counted:
        self.batches.append(list(texts))
        if len(self.batches) == 1:
            self.begun.set()
            assert self.go.wait(60)
        vectors = np.array([[len(text), ord(text[0])] for text in texts], np.float32)
        return Counted(vectors, np.ones(len(texts), np.int64), np.zeros(len(texts), dtype=bool))


def batches_of(requests: Sequence[Sequence[str]], encoders: Sequence[Recorder]) -> list[list[list[str]]]:
    """Return each encoder's batches when these requests wait behind another one; they get their own vectors."""

    async def run() -> None:
        queue = EncodingQueue(threads=1, waiting=10_000, observe=lambda *_: None)
        first = asyncio.create_task(queue.encode(encoders[0], ["first"]))  # type: ignore[arg-type]
        await asyncio.to_thread(encoders[0].begun.wait, 60)
        others: list[Any] = []
        for at, texts in enumerate(requests):
            others.append(asyncio.create_task(queue.encode(encoders[at % len(encoders)], texts)))  # type: ignore[arg-type]
            await asyncio.sleep(0)
        encoders[0].go.set()
        for texts, found in zip(requests, await asyncio.gather(*others), strict=True):
            assert found.vectors.tolist() == [[len(text), ord(text[0])] for text in texts]
        await first
        await asyncio.to_thread(queue.close)

    for encoder in encoders[1:]:
        encoder.batches.append(["first"])
    asyncio.run(run())
    return [encoder.batches[1:] for encoder in encoders]


def test_short_texts_of_several_requests_share_a_batch() -> None:
    texts = [f"{n}{'a' * 20}" for n in range(TOGETHER + 3)]
    assert batches_of([[text] for text in texts], [Recorder()]) == [[texts[:TOGETHER], texts[TOGETHER:]]]


def test_a_short_text_does_not_wait_for_a_long_one_of_its_batch() -> None:
    short, long = [f"{n} short" for n in range(3)], [f"{n} {'long ' * 40}" for n in range(3)]
    mixed = [text for pair in zip(long, short, strict=True) for text in pair]
    assert batches_of([[text] for text in mixed], [Recorder()]) == [[[long[0]], short, [long[1]], [long[2]]]]


def test_texts_of_different_lengths_are_not_padded_to_each_other() -> None:
    texts = ["a" * 10, "b" * 40, "c" * 12]
    assert batches_of([[text] for text in texts], [Recorder()]) == [[[texts[0], texts[2]], [texts[1]]]]


def test_a_long_text_is_overtaken_by_the_next_few_alone() -> None:
    texts = ["a" * 10, *(f"{n}{'b' * CHARACTERS}" for n in range(TOGETHER)), "c" * 10]
    assert batches_of([[text] for text in texts], [Recorder()])[0] == [[text] for text in texts]


def test_a_request_of_many_texts_takes_turns_with_others() -> None:
    many = [f"{n:02}{'a' * 20}" for n in range(3 * TOGETHER)]
    (found,) = batches_of([many, ["b" * 60]], [Recorder()])
    assert found == [many[:TOGETHER], ["b" * 60], many[TOGETHER : 2 * TOGETHER], many[2 * TOGETHER :]]


def test_bundles_do_not_share_a_batch() -> None:
    texts = [f"{n}{'a' * 20}" for n in range(4)]
    assert batches_of([[text] for text in texts], [Recorder(), Recorder()]) == [[[texts[0], texts[2]]], [texts[1::2]]]
