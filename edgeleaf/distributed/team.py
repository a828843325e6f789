"""The processes that train one student together, as ``torchrun`` or ``accelerate launch`` starts them.

Each has a rank. Rank 0 is the main process: it alone collects texts, asks the teacher, judges and writes; the others
wait for it, and train. What a launcher says stands in environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from edgeleaf.errors import ClusterError, reason_of

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
LONGEST_WAIT = timedelta(days=7)
"""The others wait this long for the main process, which may ask a teacher for days."""
_RANK = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_SIZE = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


@dataclass(frozen=True)
class Team:
    """This process among those of a run.

    Args:
        rank: its number, from 0.
        size: how many there are.

    Raises:
        ClusterError: from each method, if another process has ended.
    """

    rank: int = 0
    size: int = 1

    @property
    def main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until every process is here."""
        self.agree_on(lambda: None)

    def agree_on(self, find: Callable[[], T]) -> T:
        """Return, in every process, what ``find`` returns in the main process; it is called in no other."""
        if self.size == 1:
            return find()
        distributed = self._joined()
        box: list[Any] = [find() if self.main else None]
        try:
            distributed.broadcast_object_list(box, src=0)
        except RuntimeError as error:
            raise ClusterError(f"another process of this run has ended ({reason_of(error, limit=80)})") from None
        return cast(T, box[0])

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes, without its gradient."""
        total = values.detach().clone()
        if self.size > 1:
            try:
                self._joined().all_reduce(total)
            except RuntimeError as error:
                raise ClusterError(f"another process of this run has ended ({reason_of(error, limit=80)})") from None
        return total

    def _joined(self) -> Any:
        """Return ``torch.distributed``, after this process has met the others."""
        import torch
        import torch.distributed as distributed

        if not distributed.is_initialized():
            os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
            os.environ.setdefault("MASTER_PORT", "29500")
            on_gpu = torch.cuda.is_available()
            if on_gpu:
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", self.rank)))
            try:
                distributed.init_process_group(
                    "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                    rank=self.rank,
                    world_size=self.size,
                    timeout=LONGEST_WAIT,
                )
            except (RuntimeError, ValueError) as error:
                raise ClusterError(f"the processes of this run do not find each other: {reason_of(error)}") from None
        return distributed


def team() -> Team:
    """Return this process among those that a launcher started; alone if there is none.

    Raises:
        ClusterError: the launcher's variables make no sense, or it was asked for several processes and started one.
    """
    rank, size = _first(_RANK), _first(_SIZE)
    if rank is None or size is None:
        if "ACCELERATE_USE_CPU" in os.environ and os.environ.get("MASTER_ADDR"):
            raise ClusterError(
                "accelerate launch was asked for several processes and started one, as it does with --cpu where there "
                "is no MPI; put --multi_gpu in place of --cpu, which starts them on processors too"
            )
        return Team()
    try:
        found = Team(int(rank), int(size))
    except ValueError:
        raise ClusterError(f"RANK is {rank!r} and WORLD_SIZE {size!r}; whole numbers are needed") from None
    if not 0 <= found.rank < found.size:
        raise ClusterError(f"RANK is {rank} and WORLD_SIZE {size}; a rank below the size is needed")
    return found


def follows() -> bool:
    """Return whether this process is one of those that do not write, for the command line; never raises."""
    rank = _first(_RANK) if _first(_SIZE) else None
    return rank is not None and rank.isdecimal() and int(rank) > 0


def _first(names: tuple[str, ...]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)
