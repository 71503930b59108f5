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
def test_a_tree_goes_up_in_two_halves_and_comes_down_in_two(door: str, sandbox: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * (4 << 10)
    (tmp_path / "src/deep").mkdir(parents=True)
    (tmp_path / "src/deep/big").write_bytes(content)
    (tmp_path / "src/link").symlink_to("deep/big")
    subprocess.run(["tar", "-cf", "up.tar", "src"], check=True, cwd=tmp_path)
    packed = (tmp_path / "up.tar").read_bytes()
    tree = f"{door}/v1/sandboxes/{sandbox}/tree"
    # A client that goes away in the middle leaves what it sent.
    gone = ["curl", "--silent", "--noproxy", "*", "--limit-rate", "400k", "--max-time", "2", "-T", "up.tar"]
    assert (
        subprocess.run([*gone, f"{tree}?transfer_id=u&path=to"], check=False, cwd=tmp_path, timeout=60).returncode == 28
    )
    held = answered(f"{door}/v1/sandboxes/{sandbox}/transfers/u")["size"]
    assert 0 < held < len(packed)
    (tmp_path / "rest").write_bytes(packed[held:])
    done = answered("-T", "rest", f"{tree}?transfer_id=u&path=to&offset={held}", cwd=tmp_path)
    assert (done["size"], done["file_count"]) == (len(packed), 2)

    curl("-o", "whole.tar", f"{tree}?path=to", cwd=tmp_path)
    whole = (tmp_path / "whole.tar").read_bytes()
    (tmp_path / "part.tar").write_bytes(whole[:5000])
    curl("-C", "-", "-o", "part.tar", f"{tree}?path=to", cwd=tmp_path)
    assert (tmp_path / "part.tar").read_bytes() == whole
    (tmp_path / "down").mkdir()
    subprocess.run(["tar", "-xf", "whole.tar", "-C", "down"], check=True, cwd=tmp_path)
    assert (tmp_path / "down/src/link").read_bytes() == content


@pytest.mark.docker
def test_a_program_is_typed_to(door: str, sandbox: str) -> None:
    box = f"{door}/v1/sandboxes/{sandbox}"
    started = answered(f"{box}/exec", "-d", '{"command": ["cat"], "stdin": true, "wait": false}')
    run = f"{box}/execs/{started['id']}"
    assert answered(f"{run}/stdin", "--data-binary", "one ")["accepted"] == 4
    assert answered(f"{run}/stdin?offset=0&end=true", "--data-binary", "one two")["accepted"] == 7
    assert answered(f"{run}/result")["stdout"] == "one two"
    listed = answered(f"{box}/execs")["execs"]
    assert [item["id"] for item in listed] == [started["id"]]

    words = '{"command": ["sh", "-c", "read x; stty size"], "terminal": {"rows": 10, "columns": 20}, "wait": false}'
    run = f"{box}/execs/{answered(f'{box}/exec', '-d', words)['id']}"
    curl(f"{run}/resize", "-d", '{"rows": 33, "columns": 44}')
    answered(f"{run}/stdin", "--data-binary", "\n")
    assert "33 44" in answered(f"{run}/result")["stdout"]


@pytest.mark.docker
def test_the_command_shows_the_door_and_says_what_is_in_its_way(installation: Installation, door: str) -> None:
    shown = installation.qila("status")
    assert f"http      healthy ({door})" in shown.stdout.decode()
    silent = Installation(variables=installation.variables | {"QILA_HTTP_ADDRESS": "127.0.0.1:1"}).qila("status")
    assert silent.returncode == 1
    assert "http      does not answer" in silent.stdout.decode()
