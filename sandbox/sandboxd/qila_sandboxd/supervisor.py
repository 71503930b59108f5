"""A supervisor: root, and the parent of one program and of all its orphans, which can neither kill nor leave it.

It is forked before it is needed, and so is the program's leader, whose order `start {argv, env, cwd, user, background}`
comes to it from the first process by a socket of its own. Frames from the first process to the supervisor: `start {}`,
then `kill {}`. Frames to it: `started {pid}` or `failed {error, detail}`; `leader {status, by_kill}`; `swept {clean}`.
It exits when no process of the lineage is left.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import select
import signal
import socket
from typing import Any

from . import linux
from .environment import environment
from .frames import Channel, encode
from .sweep import sweep

SWEEP_SECONDS = 10.0
# Programs go first when memory runs out, on the machine as in the container.
_PROGRAM_OOM_SCORE = 500
_LOWEST_PRIORITY = 19
_MAXIMUM_ERROR_BYTES = 4096


class Supervisor:
    """Owns a program from its fork to the end of its last descendant."""

    def __init__(self, orders: socket.socket, leader: socket.socket, stdout: int, stderr: int) -> None:
        self._orders = Channel(orders)
        self._leader_orders = leader
        self._outputs = (stdout, stderr)
        self._leader = 0
        self._exec_errors = -1
        self._leader_ended = False
        self._sweeping = False
        self._childless = False
        self._poll = select.poll()

    def run(self) -> None:
        """Wait for the start order, then do the work until nobody is left."""
        linux.set_child_subreaper()
        awake, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # What is ignored stays so through exec; what has a handler goes back to its default by itself.
        for number in signal.valid_signals():
            if number == signal.SIGCHLD or signal.getsignal(number) is signal.SIG_IGN:
                signal.signal(number, _note_signal)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        # At the limit of processes it fails, and is tried again when the order comes.
        self._prepare()
        self._rehearse(awake)
        if self._orders.receive() is None or not self._launch():
            return
        for descriptor in (awake, self._orders.connection.fileno(), self._exec_errors):
            self._poll.register(descriptor, select.POLLIN)
        while not self._childless:
            for descriptor, _ in self._poll.poll():
                if descriptor == awake:
                    os.read(awake, 4096)
                elif descriptor == self._exec_errors:
                    self._settle_exec()
                elif descriptor == self._orders.connection.fileno():
                    self._obey()
            self._reap()

    def _prepare(self) -> OSError | None:
        """Fork the leader, before it is needed if possible: a fork costs more than all that is left to do for a start.

        Returns what kept it from being forked; then it may be tried again.
        """
        errors, report = os.pipe()
        try:
            self._leader = os.fork()
        except OSError as error:
            for descriptor in (errors, report):
                os.close(descriptor)
            return error
        if self._leader == 0:
            # Held here too, it would hide the supervisor's end from the first process.
            self._orders.connection.close()
            _lead(Channel(self._leader_orders), self._outputs, report)
        self._exec_errors = errors
        self._leader_orders.close()
        for descriptor in (*self._outputs, report):
            os.close(descriptor)
        return None

    def _rehearse(self, awake: int) -> None:
        """Wake up once as for the leader's end: what is touched here is copied now, and not when somebody waits."""
        if self._leader:
            os.kill(os.getpid(), signal.SIGCHLD)
            self._poll.register(awake, select.POLLIN)
            self._poll.poll()
            os.read(awake, 4096)
            # Its order may have come already, and its end: that is left for later.
            os.waitid(os.P_PID, self._leader, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            encode(_leader_ended(0, by_kill=False))

    def _launch(self) -> bool:
        error = None if self._leader else self._prepare()
        if error is not None:
            self._orders.send(_failure(error, "no new process: the sandbox is at its limit"))
            return False
        return True

    def _settle_exec(self) -> None:
        """Tell how the exec went: its pipe closes by itself when it succeeds."""
        if self._exec_errors < 0:
            return
        self._poll.unregister(self._exec_errors)
        text = os.read(self._exec_errors, _MAXIMUM_ERROR_BYTES).decode(errors="replace")
        os.close(self._exec_errors)
        self._exec_errors = -1
        if text:
            name, _, detail = text.partition(" ")
            self._leader_ended = True
            self._orders.send({"type": "failed", "error": name, "detail": detail})
        else:
            self._orders.send({"type": "started", "pid": self._leader})

    def _reap(self) -> None:
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                self._childless = True
                return
            if process == 0:
                return
            if process == self._leader:
                self._report_leader(status)

    def _report_leader(self, status: int) -> None:
        # It is dead, so its end of the pipe is closed and this does not wait.
        self._settle_exec()
        if not self._leader_ended:
            self._leader_ended = True
            by_kill = self._sweeping and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self._orders.send(_leader_ended(status, by_kill=by_kill))

    def _obey(self) -> None:
        frame = self._orders.receive()
        if frame is None:
            raise SystemExit
        # A leader that ended before the kill has ended by itself.
        self._reap()
        self._sweeping = True
        own = os.getpid()
        _, clean = sweep(lambda: linux.descendants(own), self._reap, SWEEP_SECONDS)
        self._orders.send({"type": "swept", "clean": clean})


def _note_signal(_number: int, _frame: object) -> None:
    """Only the wakeup descriptor matters."""


def _leader_ended(status: int, *, by_kill: bool) -> dict[str, Any]:
    return {"type": "leader", "status": status, "by_kill": by_kill}


def _failure(error: OSError, detail: str) -> dict[str, Any]:
    return {"type": "failed", "error": errno.errorcode.get(error.errno or 0, "EIO"), "detail": detail}


def _lead(orders: Channel, outputs: tuple[int, int], errors: int) -> None:
    """Wait for the order and become the program; never returns."""
    detail = "preparing the process"
    try:
        signal.set_wakeup_fd(-1)
        os.setsid()
        linux.raise_oom_score(_PROGRAM_OOM_SCORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(outputs[0], 1)
        os.dup2(outputs[1], 2)
        _rehearse_order()
        frame = orders.receive()
        if frame is None:
            return
        order = frame[0]
        if order["background"]:
            os.setpriority(os.PRIO_PROCESS, 0, _LOWEST_PRIORITY)
        linux.become(order["user"])
        detail = f"working directory {order['cwd']}"
        os.chdir(order["cwd"])
        detail = f"program {order['argv'][0]}"
        _execute(order["argv"], order["env"])
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "EIO")
        os.write(errors, f"{name} {detail}: {error.strerror}".encode(errors="replace")[:_MAXIMUM_ERROR_BYTES])
    except ValueError as error:
        os.write(errors, f"EINVAL {detail}: {error}".encode(errors="replace")[:_MAXIMUM_ERROR_BYTES])
    finally:
        os._exit(127)


def _rehearse_order() -> None:
    """Take an order and fail to execute it, as a supervisor rehearses."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        Channel(ours).send({"type": "start", "argv": ["."], "env": environment(linux.PROGRAM_USER, {"PATH": "/"})})
        frame = Channel(theirs).receive()
    assert frame is not None
    # A directory cannot be executed.
    with contextlib.suppress(PermissionError):
        _execute(frame[0]["argv"], frame[0]["env"])


def _execute(argv: list[str], env: dict[str, str]) -> None:
    """Become `argv[0]`, looked for in PATH as a shell does; `os.execvpe` imports modules first.

    Raises:
        OSError: it is nowhere, or the first that was found cannot be executed.
    """
    if "/" in argv[0]:
        os.execve(argv[0], argv, env)  # noqa: S606 - running programs is the purpose
    failure: OSError = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    for directory in env.get("PATH", os.defpath).split(":"):
        try:
            os.execve(os.path.join(directory, argv[0]), argv, env)  # noqa: PTH118, S606 - as above
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if isinstance(failure, FileNotFoundError):
                failure = error
    raise failure
