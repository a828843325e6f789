"""Cached gradients are the gradients: in float64 up to its rounding, with one mini-batch to the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import normalize

from edgeleaf.training.contrastive.cached import cached_loss
from edgeleaf.training.contrastive.infonce import log_share


def small_model(dropout: float = 0.0) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.EmbeddingBag(20, 8), torch.nn.Linear(8, 8), torch.nn.Tanh(), torch.nn.Dropout(dropout)
    ).double()


def gradients(mini_batch: int | None, dropout: float = 0.0, scale: float = 1.0) -> tuple[float, list[torch.Tensor]]:
    model = small_model(dropout)
    chance = torch.Generator().manual_seed(1)
    parts = [{"input_ids": torch.randint(0, 20, (n, 5), generator=chance)} for n in (7, 11)]

    def encode(features: Any) -> torch.Tensor:
        return model(features["input_ids"])

    def loss_of(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        queries, documents = (normalize(part, dim=1) for part in vectors)
        allowed = torch.ones(7, 11, dtype=torch.bool)
        return -log_share(queries @ documents.T, torch.arange(7), allowed, temperature=0.1).mean()

    torch.manual_seed(2)
    if mini_batch is None:
        loss = loss_of([encode(part) for part in parts])
    else:
        loss = cached_loss(encode, parts, loss_of, mini_batch=mini_batch)
    (loss * scale).backward()
    found = [weight.grad for weight in model.parameters()]
    assert all(part is not None for part in found)
    return float(loss.detach()), [part for part in found if part is not None]


@pytest.mark.parametrize("mini_batch", [1, 2, 3, 7, 100])
def test_the_gradients_are_those_of_the_whole_batch(mini_batch: int) -> None:
    loss, expected = gradients(None, scale=3.0)
    cached, found = gradients(mini_batch, scale=3.0)
    assert cached == pytest.approx(loss, abs=1e-14)
    assert sum(float(part.abs().sum()) for part in expected) > 0.1
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_one_mini_batch_gives_the_same_bits_and_dropout_the_same_numbers() -> None:
    loss, expected = gradients(None, dropout=0.5)
    cached, found = gradients(100, dropout=0.5)
    assert cached == loss
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=1e-15)


def test_random_numbers_go_on_after_backward_as_if_it_had_drawn_none() -> None:
    gradients(3, dropout=0.5)
    after = torch.rand(1)
    model = small_model(0.5)
    torch.manual_seed(2)
    for count in (3, 3, 1, 3, 3, 3, 2):  # the mini-batches' masks, once
        model(torch.zeros(count, 5, dtype=torch.int64))
    assert torch.equal(torch.rand(1), after)


def test_without_gradients_there_is_only_the_loss() -> None:
    with torch.no_grad():
        found = cached_loss(
            lambda part: part["input_ids"].double(),
            [{"input_ids": torch.ones(3, 2)}],
            lambda vectors: vectors[0].sum(),
            mini_batch=2,
        )
    assert found.item() == 6 and not found.requires_grad
