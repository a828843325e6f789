"""The student's optimizer: which part updates which weights, the same steps as torch, states restored unchanged."""

from __future__ import annotations

import copy

import torch

from edgeleaf.training.optimizer import Parts, student_optimizer

BATCHES = [torch.tensor([[1, 2], [2, 5]]), torch.tensor([[0, 1], [7, 1]]), torch.tensor([[3, 3], [2, 0]])]


class Encoder(torch.nn.Module):
    """What sentence-transformers' Transformer holds."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = torch.nn.Embedding(9, 4), torch.nn.Embedding(2, 4)
        self.auto_model = torch.nn.ModuleDict({"words": self.words, "positions": self.positions})
        self.auto_model.get_input_embeddings = lambda: self.words

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return (self.words(ids) + self.positions(torch.arange(2))).mean(dim=1)


def small() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(Encoder(), torch.nn.Linear(4, 3))


def made(model: torch.nn.Sequential, *, max_norm: float = 1e9) -> Parts:
    decayed = {name for name, weight in model.named_parameters() if weight.ndim == 2}
    return student_optimizer(model, lr=0.1, weight_decay=0.01, decayed=decayed, max_norm=max_norm)


def train(model: torch.nn.Sequential, optimizer: torch.optim.Optimizer, batches: list[torch.Tensor]) -> None:
    for ids in batches:
        model(ids).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_first_step_is_torchs_own_on_the_rows_that_were_read() -> None:
    sparse, dense = small(), small()
    before = sparse[0].words.weight.detach().clone()
    train(sparse, made(sparse), BATCHES[:1])
    assert sparse[0].words.sparse
    table = dense[0].words.weight
    reference = torch.optim.AdamW(
        [
            {"params": [dense[0].positions.weight, dense[1].weight], "weight_decay": 0.01},
            {"params": [dense[1].bias, table], "weight_decay": 0.0},
        ],
        lr=0.1,
    )
    train(dense, reference, BATCHES[:1])
    for (name, mine), torchs in zip(sparse.named_parameters(), dense.parameters(), strict=True):
        assert torch.allclose(mine, torchs, atol=1e-5), name
    unread = [0, 3, 4, 6, 7, 8]
    assert torch.equal(sparse[0].words.weight[unread], before[unread])


def test_a_schedule_reaches_every_part_also_after_loading() -> None:
    model = small()
    optimizer = made(model)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    train(model, optimizer, BATCHES)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_states_come_back_bit_for_bit() -> None:
    whole = small()
    train(whole, made(whole), BATCHES)
    first = small()
    optimizer = made(first)
    train(first, optimizer, BATCHES[:2])
    second = small()
    second.load_state_dict(first.state_dict())
    resumed = made(second)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(second, resumed, BATCHES[2:])
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_large_gradients_are_scaled_down() -> None:
    model = small()
    optimizer = made(model, max_norm=1e-3)
    (1000 * model(BATCHES[0]).square().sum()).backward()
    optimizer.step()
    dense = [weight.grad.flatten() for weight in model.parameters() if not weight.grad.is_sparse]
    assert torch.linalg.vector_norm(torch.cat(dense)) <= 1.001e-3
