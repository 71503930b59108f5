"""The runtime port: what the executor asks of a container engine, and nothing more.

Docker is the first implementation; another engine (Kubernetes pods with volume claims, say) implements the same port
and passes the same contract suite.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Protocol

from services.executor.images import DEFAULT_NAME
from services.executor.profile import Limits


class Quota(Enum):
    """What bounds a workspace."""

    # A file system of its own: bytes and inodes.
    LOOP = "loop"
    # The engine's own quota: bytes alone.
    ENGINE = "engine"
    NONE = "none"


@dataclass(frozen=True, kw_only=True)
class SandboxSpec:
    """What a sandbox is made of. `socket_directory` is mounted read-only into the container.

    `image` is what the engine knows it by, `image_name` the operator's name for it, which becomes a label.
    """

    sandbox_id: str
    image: str
    limits: Limits
    socket_directory: Path
    image_name: str = DEFAULT_NAME


@dataclass(frozen=True, kw_only=True)
class SandboxStatus:
    """What the engine's labels and states tell of one sandbox; `image_name` is None where no label tells it."""

    sandbox_id: str
    has_volume: bool
    has_container: bool
    running: bool
    create_time: datetime.datetime | None
    image_name: str | None = None


class Runtime(Protocol):
    """The engine. Every call may raise EngineError or WorkspaceError; each is bounded in time."""

    async def check(self, image: str) -> None:
        """Raises EngineError if the engine does not answer, ImageMissingError if it lacks the image."""

    async def recipe(self, image: str) -> str:
        """The recipe that an image says it was built from; empty if it says nothing. ImageMissingError."""

    async def use_quota(self, quota: Quota, image: str) -> str:
        """Tries whether a kind of quota holds here, with a program of the image; if so, it bounds the workspaces that
        are made from now on. Answers why it cannot be used, or an empty text.
        """  # noqa: D205 - one sentence

    async def create(self, spec: SandboxSpec) -> None:
        """Makes volume and container. Either that is there already is kept, so a repeat completes a broken one.

        A container that does not run and was made by another profile is made again. WorkspaceMissingError if the
        workspace was there and was taken away behind the engine's back.
        """

    async def start(self, sandbox_id: str) -> None:
        """Starts the container; OK if it runs. EngineError if there is none."""

    async def kill(self, sandbox_id: str) -> None:
        """Kills every process of the container at once; OK if it does not run or is not there."""

    async def remove(self, sandbox_id: str) -> None:
        """Removes container and volume; OK if they are not there."""

    async def remove_container(self, sandbox_id: str) -> None:
        """Removes the container alone; OK if it is not there."""

    async def list(self) -> Sequence[SandboxStatus]:
        """Every sandbox of this installation that has a volume or a container."""

    async def directories(self) -> Sequence[Path]:
        """Where the workspaces lie on this host; nothing if they lie elsewhere."""

    async def tidy(self) -> None:
        """Gives back what a crash left: anything but containers and workspaces."""

    async def is_running(self, sandbox_id: str) -> bool:
        """Whether the container runs."""

    async def close(self) -> None:
        """Gives back what the port itself holds; touches no container."""
