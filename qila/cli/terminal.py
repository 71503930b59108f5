"""This process's terminal and input, lent to an exec while it runs."""

from __future__ import annotations

import os
import select
import signal
import termios
import threading
import tty
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from qila.client import FailedPreconditionError, QilaError, TerminalSize, UnavailableError

if TYPE_CHECKING:
    from qila.client import Exec

_INPUT: Final = 0
_READ_BYTES: Final = 64 << 10
_STOP: Final = b"\0"
_END_OF_FILE: Final = b"\x04"
_ESCAPE: Final = 0x1D
_MAX_SIZE: Final = 4096
_DEFAULT_SIZE: Final = TerminalSize(24, 80)
# How often a terminal's thread looks whether it can still write, and tells a size again that did not arrive.
_LOOK_SECONDS: Final = 1.0
_FLUSH_SECONDS: Final = 2.0
_JOIN_SECONDS: Final = 2.0
ESCAPE_HELP: Final = "Ctrl-] and then d leaves the program running and returns here; Ctrl-] twice sends one Ctrl-]."


def terminal_size() -> TerminalSize:
    """Of the terminal that this process has, 24 by 80 if it has none that says."""
    for descriptor in (0, 1, 2):
        try:
            columns, rows = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if rows and columns:
            return TerminalSize(min(rows, _MAX_SIZE), min(columns, _MAX_SIZE))
    return _DEFAULT_SIZE


class EscapeFilter:
    """Finds the escape in what is typed: Ctrl-] and then d. Before another key it is passed on."""

    def __init__(self) -> None:
        self._pending = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What the program gets, and whether the escape was typed: what came after it is dropped."""
        passed = bytearray()
        for byte in data:
            if not self._pending:
                self._pending = byte == _ESCAPE
                if not self._pending:
                    passed.append(byte)
                continue
            self._pending = False
            if byte in b"dD":
                return bytes(passed), True
            if byte != _ESCAPE:
                passed.append(_ESCAPE)
            passed.append(byte)
        return bytes(passed), False


class Session:
    """Feeds an exec from this process's input between `begin` and `end`, which are called from the main thread.

    With `has_terminal` the terminal is raw meanwhile, and its size follows; `end` gives it back as it was.

    Attributes:
        detached: the escape was typed; watching has been stopped.
        failure: why no more input could be sent.
    """

    def __init__(self, run: Exec, *, has_terminal: bool) -> None:
        self._run = run
        self._has_terminal = has_terminal
        self._raw = has_terminal and os.isatty(_INPUT)
        self._escape = EscapeFilter()
        self._thread: threading.Thread | None = None
        self._saved: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._wake: tuple[int, int] = (-1, -1)
        self._wake_before = -1
        self.detached = False
        self.failure: QilaError | None = None

    def begin(self) -> None:
        """Takes terminal and input. A repeat does nothing."""
        if self._thread is not None:
            return
        self._wake = os.pipe()
        for descriptor in self._wake:
            os.set_blocking(descriptor, False)
        if self._raw:
            self._saved = termios.tcgetattr(_INPUT)
            # The handlers do nothing: the thread reads which signals came.
            for number in (signal.SIGWINCH, signal.SIGCONT):
                self._handlers[number] = signal.signal(number, _nothing)
            self._wake_before = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
            tty.setraw(_INPUT)
        self._thread = threading.Thread(target=self._feed, name="qila-input", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Gives terminal and input back. A repeat does nothing."""
        if self._saved:
            # One that hung up has no modes any more.
            with suppress(termios.error):
                termios.tcsetattr(_INPUT, termios.TCSADRAIN, self._saved)
            self._saved = []
            signal.set_wakeup_fd(self._wake_before)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)
        if self._thread is not None and self._wake[1] >= 0:
            os.write(self._wake[1], _STOP)
            self._run.release_stdin()
            self._thread.join(_JOIN_SECONDS)
            for descriptor in self._wake:
                os.close(descriptor)
            self._wake = (-1, -1)

    def _feed(self) -> None:
        watched = [_INPUT, self._wake[0]]
        resized = self._raw
        while True:
            resized = resized and not self._resize()
            ready = select.select(watched, [], [], _LOOK_SECONDS if self._raw else None)[0]
            if self._wake[0] in ready:
                signals = os.read(self._wake[0], _READ_BYTES)
                if _STOP in signals:
                    return
                if signal.SIGCONT in signals:
                    # Who stopped this process may have changed the terminal.
                    tty.setraw(_INPUT)
                resized = True
            if self._run.stdin_failure is not None:
                self._fail(self._run.stdin_failure)
                return
            if _INPUT in ready:
                data = _read()
                if not self._pass_on(data):
                    return
                if not data:
                    watched.remove(_INPUT)

    def _pass_on(self, data: bytes) -> bool:
        """Sends what was read, or the end of it; False if that was the last."""
        passed = data
        if self._raw:
            passed, self.detached = self._escape.feed(data)
        try:
            if passed or (not data and self._has_terminal):
                self._run.write_stdin(passed or _END_OF_FILE)
            elif not data:
                self._run.close_stdin()
            if self.detached:
                self._run.flush_stdin(_FLUSH_SECONDS)
                self._run.close()
        except QilaError as error:
            self._fail(error)
            return False
        except ValueError:
            # It was closed while this waited for room.
            return False
        return not self.detached

    def _fail(self, error: QilaError) -> None:
        # A program may end without reading all.
        if error.reason != "EXEC_ENDED":
            self.failure = error
            if self._raw:
                # Nobody should type into nothing.
                self._run.close()

    def _resize(self) -> bool:
        """Tells the size; False if that must be tried again."""
        size = terminal_size()
        try:
            self._run.resize(size.rows, size.columns)
        except UnavailableError:
            return False
        except FailedPreconditionError as error:
            # Its terminal may be on the way still; when it is over, the events say so.
            return error.reason != "EXEC_NOT_RUNNING"
        except QilaError as error:
            self.failure = error
        return True


def _read() -> bytes:
    try:
        return os.read(_INPUT, _READ_BYTES)
    except OSError:
        # The terminal hung up.
        return b""


def _nothing(_number: int, _frame: object) -> None:
    return
