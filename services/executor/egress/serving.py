"""The doors process's main loop: does what the executor says until the executor is gone."""

import asyncio
import os
import re
import socket
import ssl
from typing import Any

import structlog

from services.executor.egress.cache.port import Cache
from services.executor.egress.connect_hosts import ConnectHosts
from services.executor.egress.control import ChannelClosed, ControlChannel, InvalidMessage, Message
from services.executor.egress.dialling import SystemDialler
from services.executor.egress.downloads import Downloads
from services.executor.egress.ecosystems.catalogue import branches
from services.executor.egress.limits import Allowance, TrafficLimits
from services.executor.egress.listening import Answer, SandboxDoor
from services.executor.egress.mirror import Mirror
from services.executor.egress.package_rules import PackagePolicy
from services.executor.egress.pages import Pages
from services.executor.egress.policy import CLOSED, EgressPolicy, InvalidPolicy
from services.executor.egress.registries import Registries
from services.executor.egress.reports import Reports
from services.executor.egress.upstream import Upstream
from services.executor.egress.workers import Workers

_log = structlog.get_logger()

_SANDBOX_ID = re.compile(r"sb_[a-z2-7]{26}")
_DRAIN_SECONDS = 5.0


async def serve(
    *,
    control: socket.socket,
    peer_uid: int,
    registries: Registries,
    policy: PackagePolicy,
    traffic: TrafficLimits,
    connect_hosts: ConnectHosts,
    context: ssl.SSLContext,
    cache: Cache,
    workers: Workers,
) -> None:
    """Serve until the executor closes the control channel, then drain and close the cache.

    Raises:
        InvalidMessage: the executor broke the protocol; nothing is served any more.
    """
    channel = ControlChannel(control)
    upstream = Upstream(context)
    reports = Reports(channel)
    reporting = asyncio.create_task(reports.send_all())
    mirror = Mirror(
        branches=branches(registries, rules_of=policy.rules_of),
        pages=Pages(upstream=upstream, cache=cache, workers=workers),
        downloads=Downloads(upstream=upstream, cache=cache, workers=workers),
        reports=reports,
    )
    keeper = DoorKeeper(
        channel=channel,
        peer_uid=peer_uid,
        answer=mirror.answer,
        connect_hosts=connect_hosts,
        reports=reports,
        traffic=traffic,
    )
    try:
        await keeper.run()
    finally:
        await keeper.drain()
        reporting.cancel()
        await asyncio.gather(reporting, return_exceptions=True)
        await upstream.close()
        cache.close()
        channel.close()


class DoorKeeper:
    """The doors of all sandboxes."""

    def __init__(
        self,
        *,
        channel: ControlChannel,
        peer_uid: int,
        answer: Answer,
        connect_hosts: ConnectHosts,
        reports: Reports,
        traffic: TrafficLimits,
    ) -> None:
        self._channel = channel
        self._peer_uid = peer_uid
        self._answer = answer
        self._connect_hosts = connect_hosts
        self._dialler = SystemDialler()
        self._reports = reports
        self._traffic = traffic
        self._doors: dict[str, SandboxDoor] = {}

    async def run(self) -> None:
        """Obey the executor until it closes the channel."""
        try:
            await self._channel.send({"type": "ready"})
            while (message := await self._channel.receive()) is not None:
                await self._channel.send(await self._obey(message))
        except ChannelClosed:
            _log.warning("executor is gone")

    async def drain(self) -> None:
        """Let what is under way end, for 5 s."""
        await asyncio.gather(*(door.drain(_DRAIN_SECONDS) for door in self._doors.values()))
        self._dialler.close()

    async def _obey(self, message: Message) -> dict[str, object]:
        sandbox = message.fields.get("sandbox")
        if not isinstance(sandbox, str) or not _SANDBOX_ID.fullmatch(sandbox):
            raise InvalidMessage(problem="no sandbox id")
        match message.type:
            case "open" if message.descriptor is not None:
                await self._open(sandbox, message.descriptor, message)
                return {"type": "opened", "sandbox": sandbox}
            case "close" if message.descriptor is None:
                door = self._doors.pop(sandbox, None)
                if door is not None:
                    await door.close()
                return {"type": "closed", "sandbox": sandbox}
            case "phase" if message.descriptor is None:
                answer = self._set_phase(sandbox, message.fields.get("install"))
                # Whoever hears the answer has heard of every decision before it.
                await self._reports.told()
                return answer
            case "policy" if message.descriptor is None:
                # A command that is repeated after a restart may come for a sandbox that was closed meanwhile.
                if (door := self._doors.get(sandbox)) is not None:
                    await door.set_policy(_read_policy(sandbox, message))
                return {"type": "policy_set", "sandbox": sandbox}
        if message.descriptor is not None:
            os.close(message.descriptor)
        raise InvalidMessage(problem=f"unexpected {message.type!r}")

    async def _open(self, sandbox: str, descriptor: int, message: Message) -> None:
        listener = socket.socket(fileno=descriptor)
        if listener.family != socket.AF_UNIX or not listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            listener.close()
            raise InvalidMessage(problem="the descriptor is no listening unix socket")
        door = self._doors.get(sandbox)
        if door is None:
            door = SandboxDoor(
                sandbox=sandbox,
                peer_uid=self._peer_uid,
                answer=self._answer,
                connect_hosts=self._connect_hosts,
                dialler=self._dialler,
                reports=self._reports,
                allowance=Allowance(self._traffic),
            )
            self._doors[sandbox] = door
        # Before the first connection: an install that outlives a restart must not be refused in between.
        door.set_install(is_open=message.fields.get("install") is True)
        await door.set_policy(_read_policy(sandbox, message))
        await door.listen(listener)

    def _set_phase(self, sandbox: str, install: Any) -> dict[str, object]:
        door = self._doors.get(sandbox)
        if not isinstance(install, bool):
            raise InvalidMessage(problem="phase without install")
        # A command that is repeated after a restart may come for a sandbox that was closed meanwhile.
        if door is not None:
            door.set_install(is_open=install)
        return {"type": "phase_set", "sandbox": sandbox, "install": install}


def _read_policy(sandbox: str, message: Message) -> EgressPolicy:
    try:
        return EgressPolicy.from_message(message.fields.get("policy"))
    except InvalidPolicy as error:
        _log.error("doors closed", sandbox=sandbox, error=str(error))
        return CLOSED
