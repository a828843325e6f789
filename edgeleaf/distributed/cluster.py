"""Starts or joins a cluster of Ray, quietly: no usage statistics, no dashboard, a small object store."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeleaf.errors import ClusterError, reason_of
from edgeleaf.extras import require_ray
from edgeleaf.quiet import silence

ADDRESS = "RAY_ADDRESS"
"""The environment variable, Ray's own, with ``HOST:PORT`` of a cluster; without it Ray starts on this machine."""
OBJECT_STORE_BYTES = 128 << 20
"""Only names of shards go through the object store; texts and vectors go through files."""
SHARE = 0.5
"""Logical processors an actor asks for. Ray Data's own tasks need the rest: actors on all of them would hang it."""
_REACHED_S = 10.0


@contextmanager
def cluster(*, workers: int | None = None) -> Iterator[tuple[Any, int, bool]]:
    """Join the cluster that ``RAY_ADDRESS`` names, or start one on this machine that ends with the block.

    Args:
        workers: how many teachers are to be loaded; None means one per GPU, or one per processor where there is none.

    Yields:
        ``ray``, the number of workers, and whether each takes a GPU.

    Raises:
        MissingExtra: ray is not installed.
        ClusterError: nothing answers at the address, or it is another version of Ray.
    """
    require_ray()
    silence()
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # otherwise it prints a tip
    os.environ["RAY_DATA_DISABLE_PROGRESS_BARS"] = "1"
    address = os.environ.get(ADDRESS, "").strip()
    import ray

    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    if ray.is_initialized():
        yield ray, *_share(ray, workers)
        return
    try:
        if address:
            _reach(address)
            ray.init(address=address, **quiet)
        else:
            processors = workers or os.cpu_count() or 1
            ray.init(
                address="local",
                num_cpus=max(4, processors),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                **quiet,
            )
            workers = workers or (None if ray.cluster_resources().get("GPU") else processors)
    except ClusterError:
        raise
    except Exception as error:  # ConnectionError, RuntimeError, ValueError and Ray's own classes
        where = f"the cluster at {address}, whose token it may need" if address else "a cluster on this machine"
        raise ClusterError(f"Ray cannot start or join {where}: {reason_of(error)}") from None
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield ray, *_share(ray, workers)
    finally:
        ray.shutdown()


def _share(ray: Any, workers: int | None) -> tuple[int, bool]:
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0))
    return workers or gpus or max(1, int(there.get("CPU", 1))), gpus > 0


def check_cluster() -> None:
    """Check, before any work, that ray is installed and that the cluster which ``RAY_ADDRESS`` names answers.

    Raises:
        MissingExtra, ClusterError: see :func:`cluster`.
    """
    require_ray()
    if address := os.environ.get(ADDRESS, "").strip():
        _reach(address)


def _reach(address: str) -> None:
    """Raise ClusterError if nothing answers at ``HOST:PORT``: Ray itself would wait for minutes, or abort."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ClusterError(
            f"{ADDRESS} is {address!r}; HOST:PORT of a cluster's head is needed, as `ray start` prints it"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_REACHED_S).close()
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or reason_of(error)
        raise ClusterError(
            f"{ADDRESS}: nothing answers at {address} ({reason}); start the cluster with: ray start --head"
        ) from None
