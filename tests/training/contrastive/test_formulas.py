"""Each formula against loops in plain numpy, and its gradient against finite differences in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from edgeleaf.errors import ModelError, TrainingError
from edgeleaf.recipe.teach import MatryoshkaSpec
from edgeleaf.training.contrastive.distillation import similarity_divergence
from edgeleaf.training.contrastive.focal import focal_weights
from edgeleaf.training.contrastive.frozen import frozen_loss
from edgeleaf.training.contrastive.infonce import log_share
from edgeleaf.training.contrastive.labels import fused_scores, label_divergence
from edgeleaf.training.contrastive.matryoshka import prefixes
from edgeleaf.training.contrastive.mixing import draw_mixes, list_mix, pair_mixes
from edgeleaf.training.contrastive.soup import averaged, greedy

TAU = 0.2


def unit(*shape: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def cosine(a: Any, b: Any) -> float:
    a, b = np.asarray(a), np.asarray(b)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def divergence(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def softmax(values: list[float]) -> list[float]:
    exps = [math.exp(value) for value in values]
    return [value / sum(exps) for value in exps]


def test_the_denominator_has_all_positives_and_all_hard_negatives() -> None:
    """3 queries, 3 positives, 2 hard negatives each: the formula of the docstring, term by term."""
    queries, positives, negatives = unit(3, 5, seed=0), unit(3, 5, seed=1), unit(3, 2, 5, seed=2)
    documents = torch.cat([positives, negatives.reshape(6, 5)])
    found = log_share(queries @ documents.T, torch.arange(3), torch.ones(3, 9, dtype=torch.bool), temperature=TAU)
    for i in range(3):
        own = math.exp(cosine(queries[i], positives[i]) / TAU)
        z = own
        z += sum(math.exp(cosine(queries[i], positives[j]) / TAU) for j in range(3) if j != i)
        z += sum(math.exp(cosine(queries[i], negatives[j][k]) / TAU) for j in range(3) for k in range(2))
        assert found[i].item() == pytest.approx(math.log(own / z), abs=1e-12)


def test_another_known_positive_does_not_count_and_a_rows_own_mixes_do() -> None:
    queries, documents, mixes = unit(2, 5, seed=0), unit(4, 5, seed=1), unit(2, 3, 5, seed=2)
    allowed = torch.ones(2, 4, dtype=torch.bool)
    allowed[0, 3] = False
    extra = torch.einsum("rd,rmd->rm", queries, mixes)
    extra[1] = -torch.inf  # this row has none
    found = log_share(queries @ documents.T, torch.tensor([0, 1]), allowed, temperature=TAU, extra=extra)
    for i, (columns, own) in enumerate([([0, 1, 2], [0, 1, 2]), ([0, 1, 2, 3], [])]):
        z = sum(math.exp(cosine(queries[i], documents[j]) / TAU) for j in columns)
        z += sum(math.exp(cosine(queries[i], mixes[i][m]) / TAU) for m in own)
        assert found[i].item() == pytest.approx(cosine(queries[i], documents[i]) / TAU - math.log(z), abs=1e-12)


def test_focal_weights_are_one_minus_the_share_and_carry_no_gradient() -> None:
    scores = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    allowed = torch.ones(4, 6, dtype=torch.bool)
    shares = log_share(scores, torch.arange(4), allowed, temperature=1.0)
    weights = focal_weights(shares, 0.5)
    assert not weights.requires_grad
    expected = [(1 - softmax(row.tolist())[i]) ** 0.5 for i, row in enumerate(scores.detach())]
    assert weights.tolist() == pytest.approx(expected)
    assert focal_weights(shares, 0.0).tolist() == [1.0] * 4
    (-(weights * shares).mean()).backward()
    # With w as a constant, d loss / d score_ij = w_i (p_ij - 1[i = j]) / rows.
    for i in range(4):
        p = softmax(scores[i].tolist())
        for j in range(6):
            wanted = expected[i] * (p[j] - (i == j)) / 4
            assert scores.grad is not None
            assert scores.grad[i, j].item() == pytest.approx(wanted, abs=1e-12)


def test_focal_weights_do_not_round_an_easy_query_to_nothing() -> None:
    share = torch.tensor([-1e-12, 0.0], dtype=torch.float64)
    assert focal_weights(share, 1.0).tolist() == pytest.approx([1e-12, 0.0])


def test_mixes_of_two_are_weighted_sums_of_unit_length() -> None:
    own = unit(2, 3, 4, seed=0)
    first, second = torch.tensor([[0, 2], [1, 0]]), torch.tensor([[1, 0], [2, 1]])
    share = torch.tensor([[0.3, 0.5], [0.9, 0.0]], dtype=torch.float64)
    found = pair_mixes(own, first, second, share)
    for r in range(2):
        for m in range(2):
            a, b, part = own[r, first[r, m]].numpy(), own[r, second[r, m]].numpy(), share[r, m].item()
            mix = part * a + (1 - part) * b
            np.testing.assert_allclose(found[r, m].numpy(), mix / np.linalg.norm(mix), atol=1e-12)


def test_a_list_mix_is_weighted_by_similarity_without_a_gradient_through_the_weights() -> None:
    queries, own = unit(3, 4, seed=0).requires_grad_(), unit(3, 3, 4, seed=1)
    there = torch.tensor([[True, True, True], [True, True, False], [False, False, False]])
    found = list_mix(queries, own, there, temperature=TAU)
    for r, count in enumerate([3, 2]):
        weights = softmax([cosine(queries[r].detach(), own[r, m]) / TAU for m in range(count)])
        mix = sum(weight * own[r, m].numpy() for m, weight in enumerate(weights))
        np.testing.assert_allclose(found[r, 0].detach().numpy(), mix / np.linalg.norm(mix), atol=1e-12)
    assert not found.requires_grad
    assert torch.equal(found[2], torch.zeros(1, 4, dtype=torch.float64))


def test_drawn_mixes_are_of_two_different_negatives_that_exist_and_lambda_is_beta_2_2() -> None:
    torch.manual_seed(0)
    there = torch.tensor([[True, True, True, True], [True, True, False, False]])
    first, second, share = draw_mixes(there, 20000)
    assert not torch.any(first == second)
    for row, count in enumerate([4, 2]):
        for part in (first, second):
            seen = torch.bincount(part[row], minlength=4).double() / 20000
            assert seen[:count].tolist() == pytest.approx([1 / count] * count, abs=0.02)
            assert seen[count:].sum() == 0
    assert share.mean().item() == pytest.approx(0.5, abs=0.01)
    assert share.var().item() == pytest.approx(0.05, abs=0.005)  # of Beta(2, 2): 1/20; of an even draw: 1/12


def test_rows_with_fewer_than_two_negatives_draw_without_an_error() -> None:
    first, second, _ = draw_mixes(torch.tensor([[True, False], [False, False]]), 3)
    assert first.max() == second.max() == 0


def test_every_prefix_is_normalised_and_has_its_weight() -> None:
    vectors = unit(3, 8, seed=0)
    found = list(prefixes(MatryoshkaSpec((8, 4, 2), (1.0, 0.3, 0.2)), vectors))
    assert [weight for weight, _ in found] == [1.0, 0.3, 0.2]
    for (_, (part,)), dim in zip(found, (8, 4, 2), strict=True):
        cut = vectors[:, :dim].numpy()
        np.testing.assert_allclose(part.numpy(), cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-12)
    ((weight, (whole,)),) = prefixes(None, 3 * vectors)
    assert weight == 1.0
    np.testing.assert_allclose(whole.numpy(), vectors.numpy(), atol=1e-12)
    with pytest.raises(TrainingError, match=r"matryoshka\.dims has 9; the model's vectors have 8 numbers"):
        list(prefixes(MatryoshkaSpec((9,)), vectors))


def test_the_divergence_is_kullback_leibler_over_allowed_columns() -> None:
    teacher = torch.randn(3, 5, dtype=torch.float64)
    student = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    allowed = torch.ones(3, 5, dtype=torch.bool)
    allowed[1, 4] = allowed[2, 0] = False
    found = similarity_divergence(teacher, student, temperature=0.5, allowed=allowed)
    for i in range(3):
        columns = [j for j in range(5) if allowed[i, j]]
        p, q = (softmax([part[i, j].item() / 0.5 for j in columns]) for part in (teacher, student))
        assert found[i].item() == pytest.approx(divergence(p, q), abs=1e-12)
    found.sum().backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()
    assert student.grad[1, 4] == student.grad[2, 0] == 0
    assert similarity_divergence(teacher, teacher, temperature=0.5).abs().max() < 1e-12


def test_labels_diverge_over_a_querys_own_candidates_only() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.1], [0.8, 0.2, float("nan")]], dtype=torch.float64)
    student = torch.rand(2, 6, dtype=torch.float64)
    columns = torch.tensor([[0, 4, 2], [1, 5, -1]])
    found = label_divergence(scores, student, columns, temperature=0.1)
    for row, count in enumerate([3, 2]):
        p = softmax([scores[row, c].item() / 0.1 for c in range(count)])
        q = softmax([student[row, columns[row, c]].item() / 0.1 for c in range(count)])
        assert found[row].item() == pytest.approx(divergence(p, q), abs=1e-12)


def test_ranks_are_fused_by_their_reciprocals() -> None:
    words, dense = np.array([3.0, 1.0, 2.0]), np.array([0.1, 0.9, 0.5])
    greatest = 2 / 61
    expected = [(1 / 61 + 1 / 63) / greatest, (1 / 63 + 1 / 61) / greatest, (1 / 62 + 1 / 62) / greatest]
    assert fused_scores(words, dense).tolist() == pytest.approx(expected)
    unfound = fused_scores(np.array([-np.inf, 1.0, -np.inf]), dense)
    assert unfound.tolist() == pytest.approx([1 / 63 / greatest, (1 / 61 + 1 / 61) / greatest, 1 / 62 / greatest])


def test_the_frozen_loss_is_the_distance_and_the_weighted_divergence() -> None:
    student, teacher = unit(2, 4, seed=0).requires_grad_(), unit(2, 4, seed=1)
    documents, mixes = unit(3, 4, seed=2), unit(2, 1, 4, seed=3)
    allowed = torch.ones(2, 3, dtype=torch.bool)
    allowed[0, 2] = False
    mixed = torch.tensor([True, False])
    found = frozen_loss(
        student,
        teacher,
        documents,
        torch.tensor([0, 1]),
        allowed,
        beta=0.7,
        gamma=0.5,
        temperature=TAU,
        mixes=mixes,
        mixed=mixed,
    )
    distance, ranked = 0.0, 0.0
    for i in range(2):
        bank = [documents[j] for j in range(3) if allowed[i, j]] + ([mixes[i, 0]] if mixed[i] else [])
        p, q = (softmax([float(part[i].detach() @ d) / TAU for d in bank]) for part in (teacher, student))
        ranked += (1 - q[i]) ** 0.5 * divergence(p, q) / 2
        distance += float((student[i] - teacher[i]).detach().square().sum()) / 2
    assert found.item() == pytest.approx(distance + 0.7 * ranked, abs=1e-12)
    found.backward()
    assert student.grad is not None and torch.isfinite(student.grad).all()


@pytest.mark.parametrize(
    "loss",
    [
        lambda q, d: -log_share(q @ d.T, torch.arange(3), torch.ones(3, 5, dtype=torch.bool), temperature=TAU).mean(),
        lambda q, d: similarity_divergence(
            unit(3, 5, seed=9)[:, :5], normalize(q, dim=1) @ normalize(d, dim=1).T, temperature=TAU
        ).sum(),
        lambda q, d: (
            frozen_loss(
                normalize(q, dim=1),
                unit(3, 4, seed=8),
                unit(5, 4, seed=7),
                torch.arange(3),
                torch.ones(3, 5, dtype=torch.bool),
                beta=1.0,
                gamma=0.0,
                temperature=TAU,
            )
            + 0.0 * d.sum()
        ),  # documents are frozen
        lambda q, d: sum(
            weight * -log_share(a @ b.T, torch.arange(3), torch.ones(3, 5, dtype=torch.bool), temperature=TAU).mean()
            for weight, (a, b) in prefixes(MatryoshkaSpec((4, 2), (1.0, 0.3)), q, d)
        ),
    ],
    ids=["infonce", "distillation", "frozen", "matryoshka"],
)
def test_gradients_are_those_of_finite_differences(loss: Any) -> None:
    queries, documents = unit(3, 4, seed=0).requires_grad_(), unit(5, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (queries, documents), eps=1e-6, atol=1e-6)


def test_a_uniform_soup_is_the_mean_and_keeps_whole_numbers() -> None:
    models = [{"w": torch.full((2, 2), float(i)), "n": torch.tensor([i])} for i in (1, 2, 6)]
    mixed = averaged(models)
    assert torch.equal(mixed["w"], torch.full((2, 2), 3.0))
    assert torch.equal(mixed["n"], torch.tensor([1]))
    with pytest.raises(ModelError, match="model 2 of the soup has other weights"):
        averaged([{"w": torch.zeros(2)}, {"w": torch.zeros(3)}])


def test_a_greedy_soup_keeps_what_does_not_lower_the_score() -> None:
    """The score is the closeness to 5: begin with 4; 7 brings the mean to 5.5, which is better; 0 would spoil it."""
    models = [{"w": torch.tensor([float(value)])} for value in (0, 7, 4)]
    mixed, members = greedy(models, lambda weights: -abs(float(weights["w"]) - 5))
    assert members == [2, 1]
    assert float(mixed["w"]) == 5.5
