"""The consoles of examples/, built by the commands of their README, against a whole installation."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest
from test_chaos import kill  # type: ignore[import-not-found]  # pytest puts this directory on the path

from qila.client import Client

if TYPE_CHECKING:
    from tests.e2e.conftest import Installation

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
# The slowest to build comes last.
TOOLS = {"Go": ("go",), "Node": ("node", "npm"), "Java": ("java", "mvn")}
GREETING = b"\xff\xfe\x00 not UTF-8 \x80\n"
MIRROR = f"""
import sys
import six

sys.stdout.buffer.write({GREETING!r} + open("data/word", "rb").read() + sys.stdin.buffer.read()[::-1])
sys.stderr.buffer.write(b"\\x80 " + " ".join(sys.argv[1:]).encode())
sys.exit(7)
"""
WAITING = """
import sys, time
try:
    print("ready", flush=True)
    while True:
        time.sleep(0.05)
        sys.stderr.write(".")
except KeyboardInterrupt:
    print("interrupted")
    sys.exit(3)
"""
LATE_IMPORT = "import numpy\nprint('it ran')\n"
TICKS = 40
TICKING = f"""
import sys, time
for number in range({TICKS}):
    sys.stdout.buffer.write(b"\\xfe%d\\n" % number)
    sys.stdout.flush()
    time.sleep(0.1)
sys.stdout.buffer.write(sys.stdin.buffer.read())
"""
TICKED = b"".join(b"\xfe%d\n" % number for number in range(1, TICKS))


@dataclass(frozen=True, kw_only=True)
class Console:
    """One console: how it is called, and the gateway that it speaks to."""

    command: list[str]
    directory: Path
    address: str

    def start(self, program: Path, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        words = [*self.command, *options, self.address, str(program), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, cwd=self.directory, stdin=pipe, stdout=pipe, stderr=pipe)

    def run(self, program: Path, *arguments: str, data: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit code, stdout and stderr."""
        running = self.start(program, *arguments)
        output, errors = running.communicate(data, timeout=120)
        return running.returncode, output, errors


def commands(language: str) -> list[str]:
    """The README's commands of one language: those that build, last the one that runs."""
    readme = (ROOT / "examples/README.md").read_text()
    section = readme.split(f"\n## {language}\n")[1].split("\n## ")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


def build(language: str, copy: Path) -> Path:
    """Builds a console by the README's commands and answers the directory in which it is run."""
    entering, *building, _ = commands(language)
    variables = {
        **os.environ,
        "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        # A compiler that runs once is faster without the second tier.
        "MAVEN_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }
    words = ["bash", "-euc", "\n".join([entering, *building])]
    done = subprocess.run(words, cwd=copy, env=variables, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return copy / entering.removeprefix("cd ")


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Future[Path]]]:
    """All that can be built here, at once, from a copy."""
    copy = tmp_path_factory.mktemp("examples")
    made = shutil.ignore_patterns("node_modules", "gen", "gatewayv1", "target", "__pycache__")
    for name in ("examples", "protos"):
        shutil.copytree(ROOT / name, copy / name, ignore=made)
    possible = [language for language, tools in TOOLS.items() if all(map(shutil.which, tools))]
    with ThreadPoolExecutor(len(TOOLS)) as pool:
        yield {language: pool.submit(build, language, copy) for language in possible}


def built(language: str, builds: Mapping[str, Future[Path]], installation: Installation) -> Console:
    if language not in builds:
        pytest.skip(f"the {language} console needs {' and '.join(TOOLS[language])}")
    command = commands(language)[-1].split(" ADDRESS ")[0].split()
    address = installation.variables["QILA_GATEWAY_ADDRESS"]
    return Console(command=command, directory=builds[language].result(), address=address)


@pytest.fixture(scope="session", params=TOOLS)
def console(request: pytest.FixtureRequest, builds: Mapping[str, Future[Path]], installation: Installation) -> Console:
    return built(request.param, builds, installation)


@pytest.fixture
def sandboxes(installation: Installation) -> Iterator[set[str]]:
    """The sandboxes before the test: there are no others after it."""
    before = listed(installation)
    yield before
    assert listed(installation) == before


def listed(installation: Installation) -> set[str]:
    with Client(installation.variables["QILA_GATEWAY_ADDRESS"]) as client:
        return {sandbox.id for sandbox in client.sandboxes()}


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def until(stream: IO[bytes] | None, line: bytes) -> None:
    """Reads up to a line."""
    assert stream is not None
    read = b""
    for read_line in stream:
        read += read_line
        if read_line == line:
            return
    pytest.fail(f"{line!r} did not come: {read!r}")


def test_program_gets_its_packages_files_and_input_and_its_bytes_come_out(
    console: Console, sandboxes: set[str], tmp_path: Path
) -> None:
    written(tmp_path / "main.py", MIRROR)
    written(tmp_path / "data/word", b"\x00\xe9")
    written(tmp_path / "node_modules/left/out.py", "")
    # More than one chunk, and no whole number of them.
    data = os.urandom(200_001)
    code, output, errors = console.run(tmp_path, "an argument", "-x", data=data)
    assert (code, output) == (7, GREETING + b"\x00\xe9" + data[::-1]), errors[-2000:]
    assert errors.endswith(b"RUN\n\x80 an argument -x")
    lines = errors.split(b"\n")
    assert [line for line in lines if line in {b"RESOLVE", b"INSTALL", b"RUN"}] == [b"RESOLVE", b"INSTALL", b"RUN"]
    assert any(line.startswith(b"  installed six 1.") for line in lines)


def test_refusal_is_told_with_its_reason_and_what_to_do(console: Console, sandboxes: set[str], tmp_path: Path) -> None:
    program = written(tmp_path / "main.py", "")
    code, output, errors = console.run(program, *["x"] * 4097)
    assert (code, output) == (125, b"")
    assert b"console: FIELD_INVALID: program.args: must be at most 4096" in errors
    code, output, errors = console.run(written(tmp_path / "main.txt", "no program\n"))
    assert (code, output) == (125, b"")
    assert b"console: TARGET_UNSUPPORTED: main.txt" in errors


def test_gateway_that_is_not_there_is_told_at_once(console: Console, tmp_path: Path) -> None:
    program = written(tmp_path / "main.py", "")
    nowhere = Console(command=console.command, directory=console.directory, address="127.0.0.1:1")
    code, output, errors = nowhere.run(program)
    assert (code, output) == (125, b"")
    assert b"see that the gateway runs at this address" in errors


def test_interrupt_goes_to_the_program(console: Console, sandboxes: set[str], tmp_path: Path) -> None:
    with console.start(written(tmp_path / "main.py", WAITING)) as running:
        until(running.stdout, b"ready\n")
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert (running.returncode, output) == (3, b"interrupted\n"), errors[-2000:]


def test_interrupt_before_the_program_runs_cancels(console: Console, sandboxes: set[str], tmp_path: Path) -> None:
    with console.start(written(tmp_path / "main.py", LATE_IMPORT)) as running:
        until(running.stderr, b"INSTALL\n")
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
    assert (running.returncode, output) == (130, b""), errors[-2000:]
    assert errors.endswith(b"console: cancelled\n")


def test_termination_cancels_and_a_sandbox_can_be_kept(console: Console, sandboxes: set[str], tmp_path: Path) -> None:
    with console.start(written(tmp_path / "main.py", WAITING), options=("--keep",)) as running:
        until(running.stdout, b"ready\n")
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=60)
    assert (running.returncode, output) == (130, b""), errors[-2000:]
    first = errors.split(b"\n")[0].decode()
    assert first.startswith("sandbox sb_")
    identifier = first.removeprefix("sandbox ")
    with Client(console.address) as client:
        [told] = client.list_execs(identifier)
        assert told.ended.HasField("cancelled")
        client.remove_sandbox(identifier)


def test_console_whose_reader_went_away_removes_its_sandbox(
    console: Console, sandboxes: set[str], tmp_path: Path
) -> None:
    with console.start(written(tmp_path / "main.py", WAITING.replace("stderr", "stdout"))) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        until(running.stdout, b"ready\n")
        running.stdout.close()
        assert running.wait(timeout=60) == 125


def test_kill_9_of_the_gateway_loses_no_byte_in_either_direction(
    builds: Mapping[str, Future[Path]], installation: Installation, sandboxes: set[str], tmp_path: Path
) -> None:
    program = written(tmp_path / "main.py", TICKING)
    with ExitStack() as stack:
        running = {name: stack.enter_context(built(name, builds, installation).start(program)) for name in builds}
        for one in running.values():
            stack.callback(one.kill)
            until(one.stdout, b"\xfe0\n")
            write(one, b"before, ")
        kill(installation, "gateway")
        for one in running.values():
            write(one, b"after\xff")
        printed = {name: one.communicate(timeout=120) for name, one in running.items()}
    assert [one.returncode for one in running.values()] == [0] * len(running), printed
    assert {name: output for name, (output, _) in printed.items()} == dict.fromkeys(
        running, TICKED + b"before, after\xff"
    )


def write(running: subprocess.Popen[bytes], data: bytes) -> None:
    assert running.stdin is not None
    running.stdin.write(data)
    running.stdin.flush()
