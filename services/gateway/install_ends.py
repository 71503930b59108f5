"""How installs end: from the end of a step, or from an error around it."""

from __future__ import annotations

from typing import Final

from qila.executor.v1 import executor_pb2 as executor
from qila.gateway.v1 import gateway_pb2 as pb
from services.gateway.convert import InstallFailedError, SandboxLostError
from services.gateway.explaining import StepExplainer
from services.rpc.errors import ErrorCode, QilaError

_EXIT_OF_SIGNAL: Final = 128


async def judge(ended: executor.ProcessEnded, explainer: StepExplainer) -> None:
    """Returns if a step succeeded; raises InstallFailedError or SandboxLostError."""
    match ended.WhichOneof("end"):
        case "exited" if not ended.exited:
            return
        case "exited":
            raise await explainer.failure(ended.exited)
        case "signaled":
            raise await explainer.failure(_EXIT_OF_SIGNAL + ended.signaled)
        case "timed_out":
            raise timed_out()
        case "oom_killed":
            detail = "the installer ran out of memory; make the sandbox with more"
            raise InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, detail)
        case "start_failed":
            detail = f"the installer could not be started: {ended.start_failed.detail}"
            raise InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, detail)
        case _:
            raise SandboxLostError(ended.sandbox_lost.detail or "the installer was killed from outside")


def as_outcome(error: QilaError) -> Exception:
    """What an error of the executor or the resolver means for the install that it stopped."""
    if error.reason in {"FILE_NO_SPACE", "DISK_LOW"}:
        return InstallFailedError(pb.INSTALL_FAILURE_REASON_OUT_OF_SPACE, error.message)
    if error.code is ErrorCode.RESOURCE_EXHAUSTED or error.reason == "FILE_PERMISSION_DENIED":
        return InstallFailedError(pb.INSTALL_FAILURE_REASON_BUILD_FAILED, error.message)
    return SandboxLostError(error.message)


def timed_out() -> InstallFailedError:
    """The install used up its time."""
    return InstallFailedError(
        pb.INSTALL_FAILURE_REASON_TIMED_OUT, "the install did not finish within its time; give it a longer one"
    )
