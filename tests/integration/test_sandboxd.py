"""sandboxd in the shipped image, as the executor sees it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import select
import signal
import statistics
import tarfile
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from sandboxd_harness import Sandbox, docker  # type: ignore[import-not-found]  # pytest puts this directory on the path

pytestmark = pytest.mark.docker


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        yield made


def test_exit_codes_signals_and_both_streams_are_exact(sandbox: Sandbox) -> None:
    header, out, err = sandbox.run("sh", "-c", "printf out; printf err >&2; exit 3")
    assert (header["end"], out, err) == ({"kind": "exited", "code": 3}, b"out", b"err")
    assert sandbox.run("sh", "-c", "kill -SEGV $$")[0]["end"] == {"kind": "signaled", "signal": 11}
    assert sandbox.run("sh", "-c", "kill -KILL $$")[0]["end"] == {"kind": "signaled", "signal": 9}


@pytest.mark.parametrize(
    ("argv", "cwd", "error"),
    [
        (["/nonexistent"], "/sandbox", "ENOENT"),
        (["no-such-command"], "/sandbox", "ENOENT"),
        (["/etc/passwd"], "/sandbox", "EACCES"),
        (["true"], "/missing", "ENOENT"),
        (["a\0b"], "/sandbox", "EINVAL"),
    ],
)
def test_a_start_that_fails_says_why(sandbox: Sandbox, argv: list[str], cwd: str, error: str) -> None:
    end = sandbox.run(*argv, cwd=cwd)[0]["end"]
    assert (end["kind"], end["error"]) == ("start_failed", error)


def test_a_program_is_looked_for_as_a_shell_does(sandbox: Sandbox) -> None:
    """Behind what is missing and what may not be executed, in order; the latter is told if nothing else is there."""
    sandbox.run(
        "sh", "-c", "mkdir -p a b; echo 'exit 7' > a/found; printf '#!/bin/sh\\nexit 8' > b/found; chmod +x b/found"
    )
    for path, end in (
        ("/none:/etc/passwd:/sandbox/a:/sandbox/b", {"kind": "exited", "code": 8}),
        # An empty part is the working directory.
        (":/none", {"kind": "exited", "code": 8}),
    ):
        assert sandbox.run("found", env={"PATH": path}, cwd="/sandbox/b")[0]["end"] == end
    refused = sandbox.run("found", env={"PATH": "/sandbox/a:/none"})[0]["end"]
    assert (refused["error"], refused["detail"]) == ("EACCES", "program found: Permission denied")


def test_a_program_has_its_user_no_capability_and_default_signals(sandbox: Sandbox) -> None:
    _, out, _ = sandbox.run(
        "sh", "-c", "id -u; id -G; umask; ulimit -c; ls /proc/self/fd | wc -l; cat /proc/self/status"
    )
    lines = out.decode().splitlines()
    assert lines[:4] == ["1000", "1000", "0022", "0"]
    # 0, 1, 2 and the directory that `ls` reads.
    assert lines[4].strip() == "4"
    status = dict(line.split(":\t", 1) for line in lines[5:] if ":\t" in line)
    for name in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(status[name], 16) == 0, name
    # The C library keeps signals 32 and 33 to itself and refuses to set them, so whoever started the engine may
    # have left them ignored; it sets its own handler before it sends one.
    reserved = 1 << 31 | 1 << 32
    assert int(status["SigIgn"], 16) & ~reserved == 0
    assert status["NoNewPrivs"] == "1"


def test_environment_of_program_and_install(sandbox: Sandbox) -> None:
    program = dict(line.split("=", 1) for line in sandbox.run("env", env={"A": "1"})[1].decode().splitlines())
    install = dict(line.split("=", 1) for line in sandbox.run("env", user="install")[1].decode().splitlines())
    assert (program["HOME"], program["A"], program["USER"]) == ("/sandbox/.home", "1", "qila")
    assert install["HOME"] == "/sandbox/.qila/home"
    assert not any("/sandbox/.local" in value for value in install.values())
    assert sandbox.run("id", "-u", user="install")[1] == b"1001\n"


def test_the_first_output_is_told_behind_the_start(sandbox: Sandbox) -> None:
    name = sandbox.start("sh", "-c", "echo first; sleep 0.1")
    frames = [sandbox.receive()[0] for _ in range(2)]
    assert [(frame["type"], frame["process"]) for frame in frames] == [("started", name), ("output", name)]
    sandbox.kept.append((frames[1], b"first\n"))
    assert sandbox.finish(name)[0]["end"] == {"kind": "exited", "code": 0}


def test_programs_back_to_back_end_as_they_did(sandbox: Sandbox) -> None:
    """A leader may have its order, and its end, before its supervisor is ready."""
    for _ in range(150):
        assert sandbox.run("true")[0]["end"] == {"kind": "exited", "code": 0}
        assert sandbox.run("no-such-command")[0]["end"]["kind"] == "start_failed"


_KILL_WAITING = """
import os, pathlib, signal, sys
waiting = {int(path.parent.name) for path in pathlib.Path('/proc').glob('[0-9]*/comm')
           if path.read_text() == 'supervisor\\n'}
leaders = {process for process in waiting
           if int(pathlib.Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()[1]) in waiting}
for process in leaders if sys.argv[1] == 'leader' else waiting - leaders:
    os.kill(process, signal.SIGKILL)
    print('killed')
"""


@pytest.mark.parametrize("which", ["supervisor", "leader"])
def test_a_waiting_supervisor_or_leader_that_was_killed_is_replaced(which: str) -> None:
    with Sandbox() as other:
        assert other.run("true")[0]["end"]["code"] == 0
        # The next ones are made a moment after a start.
        other.run("sleep", "0.2")
        killed = docker("exec", "-u", "0", other.name, "python3", "-I", "-c", _KILL_WAITING, which)
        assert killed == "killed"
        for _ in range(3):
            assert other.run("sleep", "0.1")[0]["end"] == {"kind": "exited", "code": 0}


def test_large_output_arrives_whole(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    header, out, _ = sandbox.run("head", "-c", "100000000", "/dev/zero")
    print(f"100 MB in {time.monotonic() - begin:.2f} s")  # noqa: T201 - a figure worth seeing
    assert header["end"] == {"kind": "exited", "code": 0}
    assert len(out) == 100_000_000


def test_start_of_true_is_quick(sandbox: Sandbox) -> None:
    times = []
    for _ in range(40):
        begin = time.monotonic()
        sandbox.run("true")
        times.append(time.monotonic() - begin)
    print(f"true: median {statistics.median(times) * 1000:.2f} ms")  # noqa: T201 - a figure worth seeing


def test_a_background_child_that_holds_the_pipe_does_not_delay_the_end_and_dies_on_cancel(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    name = sandbox.start("sh", "-c", "(while :; do echo x; sleep 0.02; done) & echo $!")
    header, out, _ = sandbox.finish(name)
    assert header["end"] == {"kind": "exited", "code": 0}
    assert time.monotonic() - begin < 3
    child = next(word.decode() for word in out.split() if word.isdigit())
    assert sandbox.run("sh", "-c", f"kill -0 {child}")[0]["end"]["code"] == 0
    sandbox.send({"type": "cancel", "process": name})
    assert _is_gone(sandbox, child)


def test_a_child_that_writes_faster_than_the_executor_takes_it_does_not_delay_the_end(sandbox: Sandbox) -> None:
    """Nor does it keep back what the leader wrote last, on the other stream."""
    name = sandbox.start("sh", "-c", "cat /dev/zero & sleep 0.3; echo last >&2; exit 3")
    leader = sandbox.wait("started", process=name)[0]["pid"]
    sandbox.run("sh", "-c", f"while kill -0 {leader} 2>/dev/null; do sleep 0.01; done")
    taken = {"stdout": 0, "stderr": 0, "terminal": 0}
    while taken["stdout"] < 16 << 20:
        header, data = sandbox.kept.pop(0) if sandbox.kept else sandbox.receive()
        if header["type"] == "ended":
            break
        taken[header["stream"]] += len(data)
        sandbox.send({"type": "ack", "process": name, **taken})
    sandbox.send({"type": "forget", "process": name})
    sandbox.send({"type": "cancel", "process": name})
    assert header["type"] == "ended"
    assert (header["end"], taken["stderr"]) == ({"kind": "exited", "code": 3}, len("last\n"))


def _is_gone(sandbox: Sandbox, process: str) -> bool:
    script = f"for i in $(seq 500); do kill -0 {process} 2>/dev/null || exit 0; sleep 0.01; done; exit 1"
    return bool(sandbox.run("sh", "-c", script)[0]["end"]["code"] == 0)


@pytest.mark.parametrize(
    "script",
    [
        "trap '' TERM INT HUP; while :; do sleep 1; done",
        "setsid sh -c 'setsid sleep 1000 & setsid sleep 1000 &' ; kill -STOP $$",
        "f() { f | f & }; f; exec sleep 1000",
        "python3 -c 'import os\nwhile 1:\n try: os.fork()\n except OSError: pass'",
        (
            "python3 -c 'import threading,ctypes,time; threading.Thread(target=time.sleep,args=(1000,)).start(); "
            "ctypes.CDLL(None).syscall(60,0)'"
        ),
    ],
    ids=["ignores-signals", "daemons-and-stopped", "shell-bomb", "fork-bomb", "first-thread-ended"],
)
def test_a_timeout_kills_the_whole_lineage(sandbox: Sandbox, script: str) -> None:
    begin = time.monotonic()
    header = sandbox.run("sh", "-c", script, timeout_ms=700)[0]
    assert header["end"]["kind"] == "timed_out"
    assert time.monotonic() - begin < 12
    own = "import os; print(*[p for p in os.listdir('/proc') if p.isdigit() and os.stat('/proc/'+p).st_uid == 1000])"
    assert len(sandbox.run("python3", "-c", own)[1].split()) == 1


def test_cancel(sandbox: Sandbox) -> None:
    name = sandbox.start("sleep", "1000")
    sandbox.wait("started", process=name)
    sandbox.send({"type": "cancel", "process": name})
    assert sandbox.finish(name)[0]["end"] == {"kind": "cancelled"}


def test_memory_kill_is_told_from_sigkill(sandbox: Sandbox) -> None:
    header = sandbox.run("python3", "-c", "x = bytearray(2_000_000_000)")[0]
    assert (header["end"]["kind"], header["oom_kills"]) == ("oom_killed", 1)
    assert sandbox.run("true")[0]["end"] == {"kind": "exited", "code": 0}


@pytest.mark.parametrize("youngest_first", [False, True])
def test_the_kernel_kills_what_waits_for_the_next_program(sandbox: Sandbox, *, youngest_first: bool) -> None:
    """Without memory it may choose any process of the sandbox: also those that are made ahead."""
    first = docker("inspect", "--format", "{{.State.Pid}}", sandbox.name)
    found = {int(process) for process in docker("top", sandbox.name, "-eo", "pid").split()[1:]} - {int(first)}
    assert found
    for process in sorted(found, reverse=youngest_first):
        # What is to become the program goes with its supervisor.
        with suppress(ProcessLookupError):
            # Readable when the process has ended.
            watched = os.pidfd_open(process)
            try:
                signal.pidfd_send_signal(watched, signal.SIGKILL)
                assert select.select([watched], [], [], 10)[0]
            finally:
                os.close(watched)
    assert sandbox.run("true")[0]["end"] == {"kind": "exited", "code": 0}


def test_output_waits_for_the_executor_and_resumes_at_its_offset(sandbox: Sandbox) -> None:
    total = 12_000_000
    name = sandbox.start(
        "python3", "-c", f"import sys; sys.stdout.buffer.write(bytes(i % 251 for i in range({total})))"
    )
    whole = bytearray()
    while len(whole) < 1_000_000:
        header, data = sandbox.wait("output", process=name)
        assert header["offset"] == len(whole)
        whole += data
    sandbox.disconnect()
    welcome = sandbox.connect({name: {"stdout": len(whole), "stderr": 0}})
    row = next(row for row in welcome["processes"] if row["process"] == name)
    # Nothing was acknowledged before, so it holds what it read from the first byte on and no more than 4 MiB.
    assert len(whole) <= row["offsets"]["stdout"] <= 4 << 20
    assert row["held"] == {"stdout": 0, "stderr": 0, "terminal": 0}
    while len(whole) < total:
        header, data = sandbox.wait("output", process=name)
        assert header["offset"] == len(whole)
        whole += data
        sandbox.send({"type": "ack", "process": name, "stdout": len(whole), "stderr": 0})
    assert sandbox.wait("ended", process=name)[0]["end"] == {"kind": "exited", "code": 0}
    assert bytes(whole) == bytes(i % 251 for i in range(total))
    sandbox.disconnect()
    welcome = sandbox.connect({name: {"stdout": total, "stderr": 0}})
    assert welcome["processes"][0]["state"] == "ended"
    assert welcome["processes"][0]["held"] == {"stdout": total, "stderr": 0, "terminal": 0}
    assert sandbox.wait("ended", process=name)[0]["offsets"] == {"stdout": total, "stderr": 0, "terminal": 0}
    sandbox.send({"type": "forget", "process": name})


def test_a_process_that_resume_does_not_name_is_killed(sandbox: Sandbox) -> None:
    name = sandbox.start("sleep", "1000")
    pid = sandbox.wait("started", process=name)[0]["pid"]
    sandbox.disconnect()
    assert [row["process"] for row in sandbox.connect({})["processes"]] == [name]
    assert _is_gone(sandbox, str(pid))


def test_files(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 2000
    result, _ = sandbox.call("write", content[:60000], *_parts(content[60000:]), path="a/b/c.bin", executable=True)
    assert (result["size"], result["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    paths = ["a/b/c.bin", "missing", "a"]
    _, data = sandbox.call("read", paths=paths, max_file_bytes=0, max_total_bytes=0)
    assert b"".join(payload for _, payload in data) == content
    ends = [header for header, _ in data if "end" in header or "error" in header]
    assert ends[0]["end"] == {"size": len(content), "executable": True}
    assert [header["error"]["kind"] for header in ends[1:]] == ["not_found", "is_a_directory"]
    _, data = sandbox.call("list", path="a/b", depth=1, patterns=[])
    assert [(row["name"], row["kind"], row["executable"]) for row in data[0][0]["files"]] == [("c.bin", "file", True)]
    assert sandbox.run("stat", "-c", "%u:%g %a", "a/b/c.bin")[1] == b"1000:1000 755\n"
    assert sandbox.call("remove", path="a")[0]["type"] == "result"
    assert sandbox.call("remove", path="a")[0]["kind"] == "not_found"


def test_a_part_of_a_file(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 1000
    sandbox.call("write", *_parts(content), path="part", executable=False)
    result, data = sandbox.call("read_part", path="part", offset=100_000, length=50_000)
    assert (data[0][0]["size"], data[0][0]["executable"]) == (len(content), False)
    part = b"".join(payload for _, payload in data)
    assert part == content[100_000:150_000]
    assert (result["size"], result["sha256"]) == (50_000, hashlib.sha256(part).hexdigest())
    assert sandbox.call("read_part", path="part", offset=len(content), length=0)[0]["size"] == 0
    assert sandbox.call("read_part", path="part", offset=len(content) + 1, length=0)[0]["kind"] == "out_of_range"
    sandbox.run("rm", "part")


def test_stat_move_and_make_directory(sandbox: Sandbox) -> None:
    sandbox.call("write", b"1", path="m/one", executable=True)
    sandbox.call("write", b"two", path="m/two", executable=False)
    assert sandbox.call("stat", path="m/one")[0]["file"]["executable"] is True
    assert sandbox.call("stat", path="")[0]["file"]["kind"] == "directory"
    assert sandbox.call("stat", path="m/three")[0]["kind"] == "not_found"
    assert sandbox.call("move", path="m/one", target="m/two", replace=False)[0]["kind"] == "exists"
    assert sandbox.call("move", path="m/none", target="m/x/y", replace=False)[0]["kind"] == "not_found"
    assert sandbox.call("move", path="m", target="m/x", replace=False)[0]["kind"] == "invalid_path"
    assert sandbox.call("move", path="m/two", target="../two", replace=True)[0]["kind"] == "invalid_path"
    assert sandbox.call("move", path="m/one", target="m/two", replace=True)[0]["type"] == "result"
    assert sandbox.call("move", path="m/two", target="n/o/p", replace=False)[0]["type"] == "result"
    assert sandbox.call("move", path=".qila", target="q", replace=False)[0]["kind"] == "permission_denied"
    for _ in range(2):
        assert sandbox.call("make_directory", path="n/d/e")[0]["type"] == "result"
    assert sandbox.call("make_directory", path="n/o/p")[0]["kind"] == "exists"
    _, data = sandbox.call("list", path="", depth=64, patterns=["n/**", ".qila/**"])
    rows = [(row["name"], row["size"]) for row in data[0][0]["files"] if row["kind"] == "file"]
    assert rows == [("n/o/p", 1)]
    names = [row["name"] for row in data[0][0]["files"]]
    assert names == [".qila", "n", "n/d", "n/d/e", "n/o", "n/o/p"]
    sandbox.run("rm", "-r", "m", "n")


def _archive(**files: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as made:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    return file.getvalue()


def test_trees_and_transfers(sandbox: Sandbox) -> None:
    data = _archive(a=b"1", **{f"deep/{number}": b"x" * 1000 for number in range(500)})
    number = 9100
    sandbox.send(
        {
            "type": "call",
            "call": number,
            "op": "write_tree",
            "user": "program",
            "path": "t",
            "transfer": "x",
            "offset": 0,
        }
    )
    for part in _parts(data[:300_000]):
        sandbox.send({"type": "chunk", "call": number}, part)
    while not sandbox.call("transfer", transfer="x")[0]["size"]:
        continue
    sandbox.send({"type": "abort", "call": number})
    held = sandbox.call("transfer", transfer="x")[0]["size"]
    assert 0 < held <= 300_000
    assert sandbox.run("ls", "t")[0]["end"]["code"] != 0
    sha256 = hashlib.sha256(data).hexdigest()
    fields = {"path": "t", "transfer": "x", "offset": held, "sha256": sha256}
    result, _ = sandbox.call("write_tree", *_parts(data[held:]), **fields)
    assert (result["sha256"], result["file_count"]) == (sha256, 501)
    assert (
        sandbox.run("sh", "-c", "stat -c '%u %a' t/deep/7; ls -A .home/.qila-transfers | wc -l")[1] == b"1000 644\n0\n"
    )
    end, frames = sandbox.call("read_tree", path="t", etag="", offset=0)
    whole = b"".join(payload for _, payload in frames)
    assert end["sha256"] == hashlib.sha256(whole).hexdigest()
    etag = frames[0][0]["etag"]
    _, frames = sandbox.call("read_tree", path="t", etag=etag, offset=200_001)
    assert b"".join(payload for _, payload in frames) == whole[200_001:]
    row = json.dumps(["a", 1, hashlib.sha256(b"1").hexdigest(), False]).encode() + b"\n"
    _, frames = sandbox.call("compare", row, path="t", ignored_names=["deep"])
    assert frames == []
    _, frames = sandbox.call("compare", row, path="t/deep", ignored_names=[])
    assert [(header["kind"], len(json.loads(rows))) for header, rows in frames] == [("different", 1), ("beyond", 500)]
    sandbox.run("sh", "-c", "echo changed > t/deep/7")
    assert sandbox.call("read_tree", path="t", etag=etag, offset=1)[0]["kind"] == "tree_changed"
    assert all(not row[0].startswith(".home") for row in sandbox.call("survey")[1][0][0]["entries"])
    sandbox.run("rm", "-r", "t")


def _parts(data: bytes) -> list[bytes]:
    return [data[start : start + 65536] for start in range(0, len(data), 65536)]


def test_files_of_others_are_out_of_reach_and_fifos_do_not_hang(sandbox: Sandbox) -> None:
    sandbox.run(
        "sh", "-c", "mkfifo pipe; ln -s /run/qila/control.sock sock; ln -s /etc shadowed; ln -s /proc/1/environ e"
    )
    paths = ["pipe", "sock", "shadowed/shadow", "e"]
    _, data = sandbox.call("read", paths=paths, max_file_bytes=0, max_total_bytes=0)
    kinds = [header["error"]["kind"] for header, _ in data]
    assert kinds[0] == "not_a_file"
    assert kinds[2:] == ["permission_denied", "permission_denied"]
    assert sandbox.call("write", b"x", path=".qila/x", executable=False)[0]["kind"] == "permission_denied"
    assert sandbox.call("write", b"x", path="../x", executable=False)[0]["kind"] == "invalid_path"
    sandbox.run("rm", "pipe", "sock", "shadowed", "e")


def test_an_aborted_write_leaves_nothing(sandbox: Sandbox) -> None:
    sandbox.send(
        {
            "type": "call",
            "call": 9001,
            "op": "write",
            "user": "program",
            "path": "w/x",
            "executable": False,
            "transfer": "",
            "offset": 0,
        }
    )
    sandbox.send({"type": "chunk", "call": 9001}, b"half")
    script = 'for i in $(seq 500); do [ -n "$(ls -A w 2>/dev/null)" ] && exit 0; sleep 0.01; done; exit 1'
    assert sandbox.run("sh", "-c", script)[0]["end"]["code"] == 0
    sandbox.send({"type": "abort", "call": 9001})
    script = 'for i in $(seq 500); do [ -z "$(ls -A w)" ] && exit 0; sleep 0.01; done; exit 1'
    assert sandbox.run("sh", "-c", script)[0]["end"]["code"] == 0


def test_link_and_survey(sandbox: Sandbox) -> None:
    sandbox.run(
        "sh", "-c", "rm -rf * ; mkdir -p node_modules/x v; touch node_modules/x/y v/pyvenv.cfg; echo 1 > main.py"
    )
    assert sandbox.call("link", path="deps", target="/sandbox/.qila")[0]["type"] == "result"
    assert sandbox.call("link", path="deps", target="/sandbox/.home")[0]["type"] == "result"
    assert sandbox.call("link", path="main.py", target="x")[0]["kind"] == "exists"
    result, data = sandbox.call("survey")
    assert [row[:2] for row in data[0][0]["entries"]] == [["main.py", 2]]
    assert (result["file_count"], result["own_directories"], result["environments"]) == (1, ["node_modules"], [])
    times = []
    for _ in range(20):
        begin = time.monotonic()
        assert sandbox.call("survey")[0]["digest"] == result["digest"]
        times.append(time.monotonic() - begin)
    print(f"survey: median {statistics.median(times) * 1000:.2f} ms")  # noqa: T201 - a figure worth seeing
    sandbox.run("sh", "-c", "echo 2 > main.py")
    assert sandbox.call("survey")[0]["digest"] != result["digest"]


def test_a_survey_that_is_known_has_no_rows(sandbox: Sandbox) -> None:
    sandbox.run("sh", "-c", "echo 1 > main.py")
    first, rows = sandbox.call("survey", known="")
    assert rows
    again, rows_again = sandbox.call("survey", known=first["digest"])
    assert (again | {"call": first["call"]}, rows_again) == (first, [])
    sandbox.run("sh", "-c", "echo 2 > main.py")
    second, rows = sandbox.call("survey", known=first["digest"])
    assert rows
    assert second["digest"] != first["digest"]


def test_programs_cannot_get_at_the_survey_that_waits(sandbox: Sandbox) -> None:
    script = (
        "import glob, os, signal\n"
        "waiting = [p for p in glob.glob('/proc/[0-9]*') if open(p + '/comm').read() == 'survey\\n']\n"
        "print(len(waiting))\n"
        "def attempt(what):\n"
        "    try: what(); print('done')\n"
        "    except OSError as error: print(type(error).__name__)\n"
        "for p in waiting:\n"
        "    attempt(lambda: os.listdir(p + '/fd'))\n"
        "    attempt(lambda: open(p + '/mem', 'rb'))\n"
        "    attempt(lambda: os.kill(int(p[6:]), signal.SIGKILL))\n"
    )
    while (output := sandbox.run("python3", "-c", script)[1]) == b"0\n":
        continue
    assert output == b"1\n" + b"PermissionError\n" * 3
    assert sandbox.call("survey")[0]["type"] == "result"


def test_kill_user_kills_the_installer_alone(sandbox: Sandbox) -> None:
    program = sandbox.start("sleep", "1000")
    installer = sandbox.start("sh", "-c", "setsid sleep 1000 & echo forked; sleep 1000", user="install")
    sandbox.wait("started", process=program)
    sandbox.kept.append(sandbox.wait("output", process=installer))
    assert sandbox.call("kill_user", user="install")[0]["killed"] >= 2
    assert sandbox.finish(installer)[0]["end"] == {"kind": "signaled", "signal": 9}
    sandbox.send({"type": "cancel", "process": program})
    assert sandbox.finish(program)[0]["end"] == {"kind": "cancelled"}


@pytest.mark.parametrize(("door", "port"), [("mirror", 7480), ("connect", 7481)])
def test_the_relay_names_door_and_user_and_carries_both_ways(sandbox: Sandbox, door: str, port: int) -> None:
    script = (
        f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); s.sendall(b'q' * 5_000_000); "
        "s.shutdown(1); print(sum(iter(lambda: len(s.recv(1 << 18)), 0)))"
    )
    for user, uid in (("program", 1000), ("install", 1001)):
        thread, heard = sandbox.serve_doors(b"a" * 7_000_000)
        assert sandbox.run("python3", "-c", script, user=user)[1] == b"7000000\n"
        thread.join(10)
        assert b"".join(heard) == f"QILA1 {door} {uid}\n".encode() + b"q" * 5_000_000


def test_sigterm_ends_the_container_at_once(sandbox: Sandbox) -> None:
    with Sandbox() as other:
        other.start("sleep", "1000")
        begin = time.monotonic()
        docker("stop", "-t", "8", other.name)
        assert time.monotonic() - begin < 6
    assert sandbox.run("true")[0]["end"]["code"] == 0


def test_at_the_limit_of_processes_a_cancel_still_works(sandbox: Sandbox) -> None:
    bomb = sandbox.start("python3", "-c", "import os\nwhile 1:\n try: os.fork()\n except OSError: pass")
    sandbox.wait("started", process=bomb)
    # Nobody is there to read so large an order: whoever sends it must not wait for that.
    large = {f"LARGE_{number}": "x" * 120_000 for number in range(4)}
    while sandbox.run("true", env=large)[0]["end"]["kind"] != "start_failed":
        continue
    while sandbox.call("survey")[0]["type"] != "error":
        continue
    sandbox.send({"type": "cancel", "process": bomb})
    assert sandbox.finish(bomb)[0]["end"] == {"kind": "cancelled"}
    assert sandbox.run("true")[0]["end"] == {"kind": "exited", "code": 0}
    assert sandbox.call("survey")[0]["type"] == "result"
