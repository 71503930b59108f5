"""Shows an exec to its end."""

from __future__ import annotations

import signal
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from qila.cli import exits
from qila.cli.options import echo_json
from qila.client import QilaError
from qila.gateway.v1 import gateway_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qila.cli.render import Renderer
    from qila.cli.terminal import Session
    from qila.client import Exec

INTERRUPT_HELP: Final = "Ctrl-C cancels it and waits for its end; a second one leaves at once."


def watch(
    run: Exec, renderer: Renderer, *, as_json: bool = False, session: Session | None = None, cancels: bool = True
) -> int:
    """Shows an exec to its end and answers its exit code, 0 if it was left running by the session's escape.

    An interrupt cancels it and waits for its end, unless `cancels` is false: then it only ends the watching.
    """
    with _interruptible():
        try:
            return _show(run, renderer, session, as_json=as_json)
        except KeyboardInterrupt:
            if not cancels:
                renderer.say("no longer watched; it runs on", "yellow")
                raise
            # First of all: a terminal that hung up takes no words.
            run.cancel()
            renderer.say("cancelling", "yellow")
            return _show(run, renderer, None, as_json=as_json)
        except OSError:
            # Nobody reads any more: a closed pipe, or a terminal that is gone.
            with suppress(QilaError):
                if cancels:
                    run.cancel()
            raise
        finally:
            renderer.close()


def _show(run: Exec, renderer: Renderer, session: Session | None, *, as_json: bool) -> int:
    try:
        for event in run:
            if session is not None and event.phase_started.phase == pb.PHASE_RUN:
                # Before it the terminal is ours: progress is drawn, and Ctrl-C is a signal.
                renderer.close()
                session.begin()
            if event.HasField("ended"):
                _end(session)
            if as_json:
                echo_json(event)
            else:
                renderer.show(event)
            if event.HasField("ended"):
                if session is not None and session.failure is not None:
                    renderer.warn(f"qila: not all of its input was sent: {session.failure}", "yellow")
                return exits.exit_code(event.ended)
    finally:
        _end(session)
    if session is not None and session.failure is not None:
        raise session.failure
    if session is not None and session.detached:
        renderer.warn(f"detached; it runs on: qila attach {run.sandbox_id} {run.exec_id}", "yellow")
        return 0
    return exits.QILA_FAILED


def _end(session: Session | None) -> None:
    if session is not None:
        session.end()


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM and SIGHUP are as good a reason to clean up as Ctrl-C."""
    numbers = [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN]
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
