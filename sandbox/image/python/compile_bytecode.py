"""Compiles the modules of an environment into a tree beside it, which `sitecustomize` reads from.

Usage: compile_bytecode.py ENV_LIB OUT_DIR

For every `ENV_LIB/a/b.py` it writes `OUT_DIR/a/b.pyc`, each file at once or not at all, so that programs may start
meanwhile. A file that does not compile (a template, another Python's syntax) has none. It runs when nobody waits for
it, so it takes only the processor time that nobody else wants. It prints how many modules were compiled, and how
many could not be, as JSON.
"""

import importlib.util
import json
import marshal
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

# Beyond this a "module" is data, or an attack on the compiler's memory.
MODULE_LIMIT_BYTES = 16 * 1024 * 1024
HEADER = importlib.util.MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8)
LOWEST_NICENESS = 19


def lower_priority() -> None:
    """Asks the kernel to run this process only when nothing else wants to run, as far as it allows that."""
    os.nice(LOWEST_NICENESS)
    if hasattr(os, "SCHED_IDLE"):
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except OSError as error:
            sys.stderr.write(f"compile_bytecode: idle scheduling is not allowed here ({error}); niceness remains\n")


def modules(library: Path) -> Iterator[Path]:
    """Every Python source file below `library`, relative to it, links to directories not followed."""
    for directory, _, files in os.walk(library):
        for name in sorted(files):
            if name.endswith(".py"):
                yield (Path(directory) / name).relative_to(library)


def compile_module(source: Path) -> bytes | None:
    """The content of the compiled file, or None for a file that is no module of this Python.

    A syntax error, bytes that are not text, nesting beyond the compiler's depth: none of them is ours to report,
    because a program that imports such a file gets Python's own error.
    """
    try:
        if not source.is_file() or source.stat().st_size > MODULE_LIMIT_BYTES:
            return None
        code = compile(source.read_bytes(), str(source), "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return None
    return HEADER + marshal.dumps(code)


def write_at_once(target: Path, content: bytes) -> None:
    """Writes a file so that a reader finds all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    partial.write_bytes(content)
    partial.replace(target)


def compile_tree(library: Path, out: Path) -> dict[str, int]:
    """Compiles what has no compiled form yet; answers with the counts."""
    counts = {"compiled": 0, "skipped": 0}
    for relative in modules(library):
        target = out / relative.with_suffix(".pyc")
        if target.exists():
            continue
        content = compile_module(library / relative)
        if content is None:
            counts["skipped"] += 1
        else:
            write_at_once(target, content)
            counts["compiled"] += 1
    return counts


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 done, 1 the output cannot be written, 2 wrong arguments."""
    if len(arguments) != len(("ENV_LIB", "OUT_DIR")):
        sys.stderr.write("usage: compile_bytecode.py ENV_LIB OUT_DIR\n")
        return 2
    # Programs find their modules by the real path; tracebacks shall name that one.
    library, out = Path(arguments[0]).resolve(), Path(arguments[1])
    if not library.is_dir():
        sys.stderr.write(f"compile_bytecode: {library} is not a directory\n")
        return 2
    lower_priority()
    warnings.simplefilter("ignore")
    try:
        counts = compile_tree(library, out)
    except OSError as error:
        sys.stderr.write(f"compile_bytecode: {error}\n")
        return 1
    sys.stdout.write(json.dumps(counts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
