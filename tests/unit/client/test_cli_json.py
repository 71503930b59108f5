"""Every command answers in JSON, tells its errors in JSON, and is completed by the shell."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from qila.cli import stack
from qila.cli.__main__ import call, cli
from qila.client import Client
from qila.executor.v1 import executor_pb2 as executor
from qila.resolver.v1 import resolver_pb2 as resolver
from services.gateway.executor_fake import FakeProcess

from .fakes_server import FakesServer

COMMANDS = cli.commands
NOWHERE = "127.0.0.1:1"
# Its answer is the protocol itself, which tests/unit/client/test_mcp.py speaks.
WITHOUT_ANSWER = {"mcp"}
# They go on until they are interrupted.
ENDLESS = {"forward", "watch"}
# Their words are the program's, or a name that nobody can know before it is written.
NOT_COMPLETED = {
    *(("run", "args"), ("exec", "words"), ("shell", "words"), ("plan", "args")),
    *(("forward", "ports"), ("preview", "port"), ("signal", "number"), ("ls", "path"), ("mv", "target")),
}


class Place:
    """A sandbox with an exec that has run, and local files: what the words of a command name."""

    def __init__(self, client: Client, directory: Path) -> None:
        self.directory = directory
        (directory / "main.py").write_text("print('hello')")
        self.program = str(directory / "main.py")
        self.sandbox = client.create().id
        with (directory / "main.py").open("rb") as opened:
            client.put(self.sandbox, "main.py", opened)
        client.put(self.sandbox, "requirements.txt", io.BytesIO(b"pyyaml"))
        self.exec = client.exec(self.sandbox, "main.py").communicate().exec_id


def _words(place: Place) -> dict[str, list[str]]:
    """A right use of each command that comes to an end by itself."""
    box, running = place.sandbox, place.exec
    pylock = place.directory / "pylock.toml"
    pylock.write_text('lock-version = "1.0"\ncreated-by = "x"\npackages = []\n')
    return {
        "run": [place.program],
        "create": [],
        "policy": [box],
        "egress": [box],
        "put": [box, place.program],
        "ls": [box],
        "stat": [f"{box}:main.py"],
        "get": [f"{box}:main.py", str(place.directory / "down")],
        "mv": [f"{box}:main.py", "moved.py"],
        "mkdir": [f"{box}:made"],
        "rm": [f"{box}:main.py"],
        "sync": [str(place.directory), box],
        "exec": [box, "main.py"],
        "shell": [box],
        "attach": [box, running],
        "execs": [box],
        "signal": [box, running, "TERM"],
        "cancel": [box, running],
        "forward": [box, "0:8000"],
        "watch": [box],
        "preview": [box, "8000"],
        "images": [],
        "lock": [box],
        "sbom": [box],
        "diff": [str(pylock), str(pylock)],
        "plan": [place.program],
        "completion": ["bash"],
        "up": [],
        "down": [],
        "status": [],
    }


async def _sbom(
    header: resolver.RenderSbomHeader, parts: AsyncIterator[tuple[resolver.SbomPart, bytes]]
) -> AsyncGenerator[bytes, None]:
    assert header.exec_id
    async for _ in parts:
        pass
    yield b'{"bomFormat":\n "CycloneDX"}'


async def _shell(process: FakeProcess) -> int:
    await process.read()
    return 7


async def _wait(process: FakeProcess) -> int:
    while not process.signals:
        await process.bell.wait()
    return 0


@pytest.fixture
def place(fakes: FakesServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # The fake's own is no JSON.
    fakes.resolver.render_sbom = _sbom  # type: ignore[method-assign]
    fakes.executor.programs.update(bash=_shell, wait=_wait)
    for name in ("QILA_RUN_DIR", "QILA_STATE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    # Three services are not started for a form of words.
    monkeypatch.setattr(stack, "up", lambda *_: None)
    (tmp_path / "local").mkdir()
    with Client(fakes.address) as client:
        made = Place(client, tmp_path / "local")
        records = fakes.executor.sandboxes[made.sandbox].records
        records.append(executor.EgressRecord(sequence=1, verdict=executor.EGRESS_VERDICT_ALLOWED))
        return made


def _lines(text: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(item, dict) for item in found)
    return found


def _interrupted(words: list[str]) -> tuple[int, str]:
    """What a command says first, before it is interrupted."""
    command = [sys.executable, "-m", "qila.cli", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        return process.wait(20), line


def test_every_command_has_the_option() -> None:
    for name, command in COMMANDS.items():
        options = {word for option in command.params for word in option.opts}
        assert "--json" in options, name


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WITHOUT_ANSWER))
def test_an_answer_is_json(place: Place, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = {"lock": ["--native"]}.get(name, [])
    words = [name, "--json", *options, *_words(place)[name]]
    if name == "signal":
        assert call(["exec", "-d", "--exec-id", "ex_" + "w" * 26, place.sandbox, "--", "wait"]) == 0
        words[-2] = "ex_" + "w" * 26
        capfd.readouterr()
    code, out = _interrupted(words) if name in ENDLESS else (call(words), "")
    shown = capfd.readouterr()
    assert code == {"shell": 7, "status": 1, "watch": 130}.get(name, 0)
    # A terminal is all of stdout.
    answers = _lines(shown.err if name == "shell" else out + shown.out)
    assert answers
    assert name == "shell" or not shown.err.strip()


def test_a_lock_and_a_warning_are_json(place: Place, capfd: pytest.CaptureFixture[str]) -> None:
    assert call(["lock", "--json", place.sandbox]) == 0
    assert _lines(capfd.readouterr().out)[0]["packages"][0]["name"] == "pyyaml"
    (place.directory / "link").symlink_to("main.py")
    assert call(["put", "--json", place.sandbox, str(place.directory)]) == 0
    (warning,) = _lines(capfd.readouterr().err)
    assert "symbolic link" in warning["warning"]["message"]


@pytest.mark.parametrize("name", sorted(COMMANDS))
@pytest.mark.parametrize("wrong", [["--no-such-option"], ["--address"], ["a", "b", "c", "d", "e"]])
def test_wrong_words_are_one_line(name: str, wrong: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    if name in {"run", "exec", "shell", "plan", "put"} and len(wrong) > 1:
        pytest.skip("it takes any number of words")
    assert call([name, *wrong]) == 125
    shown = capfd.readouterr()
    assert shown.out == ""
    assert re.fullmatch(rf"qila: .+; see 'qila {name} --help'\n", shown.err)
    assert call([name, "--json", *wrong]) == 125
    (told,) = _lines(capfd.readouterr().err)
    assert (told["error"]["code"], told["error"]["reason"]) == ("INVALID_ARGUMENT", "USAGE")


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"mcp", "up", "down", "status", "completion", "plan", "diff"}))
def test_a_gateway_that_is_not_there_is_one_line(place: Place, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    words = [name, "--address", NOWHERE, *_words(place)[name]]
    assert call(words) == 125
    shown = capfd.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"qila: [^\n]+'qila up' starts them \[UNAVAILABLE\]\n", shown.err)
    assert call([name, "--json", *words[1:]]) == 125
    (told,) = _lines(capfd.readouterr().err)
    assert (told["error"]["code"], told["error"]["reason"]) == ("UNAVAILABLE", "UNAVAILABLE")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["nonsense"], "no such command 'nonsense'"),
        (["get", "sb_x"], "name a file or directory: SANDBOX:PATH"),
        (["get", "--json", "sb_x:a", "-"], "stdout holds the file"),
        (["put", "sb_x", ":there"], "name at least one FILE or DIR before :PATH"),
        (["put", "sb_x", "gone"], "gone: no such file or directory"),
        (["rm", "sb_x:"], "nothing after ':'"),
        (["mv", "sb_x", "there"], "name a path, as SANDBOX:PATH"),
        (["mkdir", "sb_x"], "name a path, as SANDBOX:PATH"),
        (["exec", "sb_x"], "name a FILE, a --module, a --script, or a command after --"),
        (["exec", "sb_x", "--"], "name a command after --"),
        (["exec", "--nope", "sb_x", "x"], "no such option: --nope"),
        (["shell", "--nope"], "no such option: --nope"),
        (["run", "--nope", "x"], "--nope: no such option"),
        (["exec", "-t", "--json", "sb_x", "x"], "a terminal shows no JSON"),
        (["exec", "-e", "NAME", "sb_x", "x"], "write NAME=VALUE"),
        (["run", "gone.py"], "gone.py: no such file or directory"),
        (["signal", "sb_x", "ex_x", "WINNER"], "no such signal; write INT, SIGTERM, 9"),
        (["forward", "sb_x", "0"], "is not [LOCAL:]PORT, as 8000 or 9000:8000"),
        (["preview", "sb_x", "99999"], "1<=x<=65535"),
        (["preview", "--ttl", "0", "sb_x", "1"], "1<=x<=86400"),
        (["policy", "--allow-host", "a", "sb_x"], "say --egress too"),
        (["diff", "gone", "gone"], "gone: no such file, and no sandbox's id"),
        (["diff", "--json", "--format", "markdown", "a", "b"], "choose one"),
        (["plan", "gone"], "'gone' does not exist"),
        (["sync", "gone", "sb_x"], "'gone' does not exist"),
        (["completion", "csh"], "'csh' is not one of 'bash', 'zsh', 'fish'"),
        (["stat", "sb_x:a"], "no sandbox 'sb_x'; make one with"),
        (["create", "--language", "C++"], "language: must be a lower-case name"),
        (["create", "--image", "none"], "none"),
        (["create", "--lock", "gone"], "'gone' does not exist"),
    ],
)  # fmt: skip
def test_a_wrong_use_says_what_to_do(
    fakes: FakesServer, words: list[str], expected: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert fakes.address
    assert call(words) == 125
    shown = capfd.readouterr()
    assert shown.out == ""
    assert expected in shown.err
    assert shown.err.count("\n") == 1
    assert shown.err.startswith(("qila: ", '{"error": '))


def _completed(words: list[str], incomplete: str) -> list[tuple[str, str]]:
    found = ShellComplete(cli, {}, "qila", "_QILA_COMPLETE").get_completions(words, incomplete)
    return [(item.type, item.value) for item in found]


def test_a_shell_completes_every_command_and_option() -> None:
    assert {value for _, value in _completed([], "")} == set(COMMANDS)
    for name, command in COMMANDS.items():
        long = {word for option in command.params for word in option.opts if word.startswith("--")}
        assert long <= {value for _, value in _completed([name], "--")}, name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_shell_completes_every_argument(place: Place, name: str) -> None:
    """By what the gateway or this machine has; one that cannot be is named above."""
    running = "ex_" + "w" * 26
    assert call(["exec", "-d", "--exec-id", running, place.sandbox, "--", "wait"]) == 0
    given: list[str] = []
    for parameter in COMMANDS[name].params:
        if not isinstance(parameter, click.Argument) or (name, parameter.name) in NOT_COMPLETED:
            continue
        assert _completed([name, *given], ""), parameter.name
        given.append(place.sandbox)


def test_help_of_every_command_says_what_json_is(capfd: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        assert call([name, "--help"]) == 0
        shown = capfd.readouterr().out
        assert re.search(r"--json +\w", shown), name
