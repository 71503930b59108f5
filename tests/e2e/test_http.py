"""The HTTP door of a real installation, with the calls of README as curl makes them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Installation  # type: ignore[import-not-found]  # pytest puts this directory on the path

PROGRAM = "import requests\n\nprint(requests.codes.ok)\n"


@pytest.fixture
def door(installation: Installation) -> str:
    return f"http://{installation.variables['QILA_HTTP_ADDRESS']}"


def curl(*arguments: str, cwd: Path | None = None) -> str:
    command = ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "120", *arguments]
    done = subprocess.run(command, capture_output=True, check=True, cwd=cwd, timeout=150)
    return done.stdout.decode()


def answered(*arguments: str, cwd: Path | None = None) -> Any:
    return json.loads(curl(*arguments, cwd=cwd))


def written(blocks: list[str]) -> str:
    """What a program wrote, by the events of a stream."""
    events = [json.loads(block.partition("data: ")[2]) for block in blocks]
    return "".join(event["output"]["data"] for event in events if "output" in event)


@pytest.mark.docker
def test_a_first_user_copies_the_four_calls(door: str, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    made = answered("-X", "POST", f"{door}/v1/sandboxes", "-d", '{"language": "python"}')
    assert "id" in made, made
    box = f"{door}/v1/sandboxes/{made['id']}"
    answered("-X", "POST", f"{box}/files", "-F", "file=@main.py", cwd=tmp_path)
    run = ("-X", "POST", f"{box}/exec", "-d", '{"filename": "main.py"}')
    first = answered(*run)
    lines = first["output"].splitlines()
    assert any(line.startswith("Installing requests==") for line in lines), json.dumps(first)
    assert lines[-1] == "200"
    assert (first["exit_code"], first["stdout"], first["end"]) == (0, "200\n", {"exited": 0})
    second = answered(*run)
    assert (second["output"], second["exit_code"]) == ("200\n", 0)
    assert second["packages"] == []

    # The same as a stream, in two halves.
    stream = curl("-N", *run, "-H", "Accept: text/event-stream")
    blocks = stream.strip().split("\n\n")
    assert "event: ended" in blocks[-1]
    middle = next(index for index, block in enumerate(blocks) if '"phase":"run"' in block)
    event_id = blocks[middle].split("\n")[0].removeprefix("id: ")
    resumed = curl("-N", *run, "-H", "Accept: text/event-stream", "-H", f"Last-Event-ID: {event_id}")
    again = resumed.strip().split("\n\n")
    # Pieces may be cut elsewhere; what they hold is the same.
    assert written(again) == written(blocks[middle + 1 :]) == "200\n"
    assert again[-1] == blocks[-1]

    names = [package["name"] for package in answered(f"{box}/lock")["packages"]]
    assert "requests" in names
    assert answered(f"{box}/sbom")["bomFormat"] == "CycloneDX"
    assert curl(f"{box}/files/main.py") == PROGRAM
    records = answered(f"{box}/egress/records")["records"]
    assert {record["verdict"] for record in records} == {"allowed"}
    assert curl("-X", "DELETE", box, "-w", "%{http_code}") == "204"
    assert answered(box)["error"]["reason"] == "SANDBOX_NOT_FOUND"


@pytest.mark.docker
def test_a_large_file_goes_up_and_down(door: str, sandbox: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * (64 << 12)
    (tmp_path / "big").write_bytes(content)
    box = f"{door}/v1/sandboxes/{sandbox}"
    written = answered("-F", "path=data/", "-F", "file=@big", f"{box}/files", cwd=tmp_path)
    assert written["files"][0]["size"] == len(content)
    curl("-o", "again", f"{box}/files/data/big", cwd=tmp_path)
    assert (tmp_path / "again").read_bytes() == content


@pytest.mark.docker
def test_the_command_shows_the_door_and_says_what_is_in_its_way(installation: Installation, door: str) -> None:
    shown = installation.qila("status")
    assert f"http      healthy ({door})" in shown.stdout.decode()
    silent = Installation(variables=installation.variables | {"QILA_HTTP_ADDRESS": "127.0.0.1:1"}).qila("status")
    assert silent.returncode == 1
    assert "http      does not answer" in silent.stdout.decode()
