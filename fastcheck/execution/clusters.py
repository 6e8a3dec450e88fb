"""Dask and Ray clusters, made the active backend of joblib while a check runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from fastcheck.errors import InputError
from fastcheck.settings import Settings

__all__ = ["CLUSTERS", "cluster"]

CONNECT_SECONDS = 20


@contextmanager
def _dask(address: str | None) -> Iterator[None]:
    """Use a Dask scheduler, or a client that is there already."""
    from joblib import parallel_config

    distributed = _required("distributed", "dask")
    if address is None:
        try:
            distributed.get_client()
        except ValueError:
            raise InputError(
                "backend='dask' without a cluster",
                "scheduler='tcp://host:8786', or an active dask.distributed.Client",
                "Start one with: dask scheduler, and on each machine: dask worker tcp://…",
            ) from None
        with parallel_config("dask"):
            yield
        return
    try:
        client = distributed.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise _unreachable("Dask scheduler", address, error) from None
    with client, parallel_config("dask", client=client):
        yield


@contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Use a Ray cluster; without an address the one that is there, or one on this machine."""
    from joblib import parallel_config

    ray = _required("ray", "ray")
    importlib.import_module("ray.util.joblib").register_ray()
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable("Ray cluster", str(address), error) from None
    try:
        with parallel_config("ray"):
            yield
    finally:
        if ours:
            ray.shutdown()


def _required(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"backend={extra!r} without {module}",
            f"{module} in this environment and on the workers",
            f"pip install 'fastcheck[{extra}]'",
        ) from None


def _unreachable(what: str, address: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return InputError(f"no {what} at {address} ({reason})", "one that runs and can be reached")


CLUSTERS: dict[str, Callable[[str | None], AbstractContextManager[None]]] = {
    "dask": _dask,
    "ray": _ray,
}


@contextmanager
def cluster(settings: Settings) -> Iterator[None]:
    """Connect to the cluster that the settings name; nothing for backends on this machine.

    Raises
    ------
    InputError
        Without the package, or where no cluster answers.
    """
    address = settings.scheduler if settings.backend == "dask" else settings.ray_address
    connect = CLUSTERS.get(settings.backend)
    if connect is None:
        yield
        return
    with connect(address):
        yield
