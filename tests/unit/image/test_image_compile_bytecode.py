"""What the compile job writes, and what it leaves out."""

import importlib.util
import json
import marshal
import subprocess
import sys
from pathlib import Path

from sandbox.image.python import compile_bytecode


def write(library: Path, name: str, content: bytes) -> None:
    path = library / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_a_tree_is_compiled_beside_itself_and_broken_files_are_left_out(tmp_path: Path) -> None:
    library, out = tmp_path / "lib", tmp_path / "out"
    write(library, "good.py", b"VALUE = 7\n")
    write(library, "pack/inner.py", b"VALUE = 8\n")
    write(library, "template.py", b"{{ name }} = (\n")
    write(library, "latin.py", b"x = '\xe9'\n")
    write(library, "null.py", b"x = 1\0\n")
    write(library, "deep.py", b"x = " + b"(" * 100_000 + b"\n")
    (library / "dangling.py").symlink_to("nowhere.py")
    result = subprocess.run(
        [sys.executable, compile_bytecode.__file__, str(library), str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(result.stdout) == {"compiled": 2, "skipped": 5}
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()) == [
        "good.pyc",
        "pack/inner.pyc",
    ]
    assert [path.name for path in library.rglob("__pycache__")] == []
    data = (out / "pack/inner.pyc").read_bytes()
    assert data[:8] == importlib.util.MAGIC_NUMBER + b"\x01\0\0\0"
    names: dict[str, object] = {}
    code = marshal.loads(data[16:])
    exec(code, names)
    assert names["VALUE"] == 8
    assert code.co_filename == str(library / "pack/inner.py")


def test_what_is_compiled_already_is_not_compiled_again(tmp_path: Path) -> None:
    library, out = tmp_path / "lib", tmp_path / "out"
    write(library, "good.py", b"VALUE = 7\n")
    assert compile_bytecode.compile_tree(library, out) == {"compiled": 1, "skipped": 0}
    assert compile_bytecode.compile_tree(library, out) == {"compiled": 0, "skipped": 0}


def test_a_module_beyond_the_limit_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, "big.py", b"#" * (compile_bytecode.MODULE_LIMIT_BYTES + 1))
    assert compile_bytecode.compile_module(tmp_path / "big.py") is None


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    for arguments in ([], [str(tmp_path / "none"), str(tmp_path / "out")]):
        result = subprocess.run(
            [sys.executable, compile_bytecode.__file__, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
