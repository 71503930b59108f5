"""The import that ended a program, from the end of its stderr."""

from __future__ import annotations

import re
from dataclasses import dataclass

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from services.resolver.model import ImportFinding
from services.resolver.paths import WORKSPACE
from services.resolver.python.findings import finding_of_module
from services.resolver.python.hints import find_hints
from services.resolver.python.names import is_popular, meant

MAX_TAIL_BYTES = 256 * 1024
MAX_MESSAGE_LINES = 12
MAX_REQUIREMENT_LENGTH = 500
ANSI = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")
# Before the lines of a group of exceptions stand bars.
BARS = re.compile(r"^[ ]{0,40}[|+] ?")
TRACEBACK = re.compile(r"(?:Exception Group )?Traceback \(most recent call last\):")
CHAINED = frozenset(
    {
        "The above exception was the direct cause of the following exception:",
        "During handling of the above exception, another exception occurred:",
    }
)
FRAME = re.compile(r'  File "(?P<file>[^"]{1,4096})", line (?P<line>\d{1,9})')
CELL = re.compile(r"(?P<path>.+\.ipynb), (?P<cell>cell \d{1,9})")
ERROR = re.compile(r"(?P<type>[A-Za-z_][\w.]{0,200})(?:: (?P<message>.*))?")
NO_MODULE = re.compile(r"No module named '?(?P<module>[\w.]{1,300})'?(?P<rest>.*)")
STARTED = re.compile(r"(?:/\S{0,300}/)?python[\d.]{0,10}: (?P<message>(?:No module named|Error while finding) .*)")
DISTRIBUTION = re.compile(
    r"(?:The '(?P<one>[^']{1,200})' distribution was not found|metadata was found for (?P<two>\S{1,200}))"
)
OPTIONAL = re.compile(r"Missing optional dependency '(?P<name>[\w.-]{1,100})'")
# What supervisors and Python itself say behind the last traceback.
AFTERWARDS = re.compile(r"\[\d{4}-\d\d-\d\d .*|Exception ignored .*|sys:1: .*|[-+| ]*|\^C")
IMPORT_ERRORS = frozenset({"ImportError", "ModuleNotFoundError"})
NOT_FOUND_ERRORS = frozenset({"DistributionNotFound", "PackageNotFoundError"})
NOT_OURS = (f"{WORKSPACE}/.qila/", f"{WORKSPACE}/.local/", f"{WORKSPACE}/deps/")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Failure:
    """One traceback: the error's type without its modules, its message with further lines, the place in the program."""

    type: str
    message: str
    path: str
    line: int
    note: str


def explain_run(output: bytes) -> list[ImportFinding]:
    """The import that was not found, if that is what ended the program; one that it caught does not count."""
    text = ANSI.sub("", output[-MAX_TAIL_BYTES:].decode("utf-8", "replace")).replace("\r\n", "\n")
    lines = [BARS.sub("", line) if line.lstrip()[:1] in {"|", "+"} else line for line in text.split("\n")]
    while lines and AFTERWARDS.fullmatch(lines[-1]):
        lines.pop()
    if not lines:
        return []
    started = STARTED.fullmatch(lines[-1])
    if started:
        return _missing(_Failure(type="ImportError", message=started["message"], path="", line=0, note=""))
    for failure in _last_chain(lines):
        found = _missing(failure)
        if found:
            return found
    return []


def _last_chain(lines: list[str]) -> list[_Failure]:
    """The last traceback of the text and those that led to it, the last first; empty if the text goes on behind it."""
    starts = [index for index, line in enumerate(lines) if TRACEBACK.fullmatch(line.strip())]
    chain: list[_Failure] = []
    end = len(lines)
    for start in reversed(starts):
        failure = _failure(lines[start:end], is_last=not chain)
        if failure is None:
            break
        chain.append(failure)
        end = start
        while end and not lines[end - 1].strip():
            end -= 1
        if not end or lines[end - 1].strip() not in CHAINED:
            break
        end -= 1
    return chain


def _failure(lines: list[str], *, is_last: bool) -> _Failure | None:
    body = next((index for index, line in enumerate(lines[1:], 1) if line and not line.startswith(" ")), None)
    error = ERROR.fullmatch(lines[body]) if body is not None else None
    if body is None or error is None:
        return None
    message = error["message"] or ""
    rest = [line for line in lines[body + 1 :] if line.strip()]
    name = error["type"].rpartition(".")[2]
    # More lines may belong to the message, but not where the message is whole: then the program went on.
    if is_last and rest and (NO_MODULE.match(message) or len(rest) > MAX_MESSAGE_LINES):
        return None
    path, line, note = _place(lines[:body])
    return _Failure(type=name, message="\n".join([message, *rest]), path=path, line=line, note=note)


def _place(lines: list[str]) -> tuple[str, int, str]:
    """The innermost frame that lies in the program's own files: path, line, and the cell if it is a notebook."""
    for text in reversed(lines):
        frame = FRAME.match(text)
        if frame is None or frame["file"].startswith("<"):
            continue
        file = frame["file"]
        cell = CELL.fullmatch(file)
        path = cell["path"] if cell else file
        if path.startswith(NOT_OURS) or (path.startswith("/") and not path.startswith(f"{WORKSPACE}/")):
            continue
        return path.removeprefix(f"{WORKSPACE}/"), int(frame["line"]), f"in {cell['cell']}" if cell else ""
    return "", 0, ""


def _missing(failure: _Failure) -> list[ImportFinding]:
    if failure.type in NOT_FOUND_ERRORS:
        return _of_distribution(failure)
    if failure.type in IMPORT_ERRORS:
        named = NO_MODULE.search(failure.message)
        if named:
            return _of_module(failure, named["module"].strip("."), named["rest"])
    optional = OPTIONAL.search(failure.message)
    if optional:
        return [finding_of_module(optional["name"], failure.path, failure.line, failure.note)]
    return _of_advice(failure) if failure.type in {*IMPORT_ERRORS, "RuntimeError"} else []


def _of_module(failure: _Failure, module: str, rest: str) -> list[ImportFinding]:
    if not module or "cannot be directly executed" in rest or module.endswith(".__main__"):
        return []
    if "is not a package" in rest:
        parent = module.rpartition(".")[0]
        note = f"{parent} is a single file, perhaps one's own, that hides a package of this name"
        return [ImportFinding(module=module, path=failure.path, line=failure.line, note=note)]
    return [finding_of_module(module, failure.path, failure.line, failure.note)]


def _of_distribution(failure: _Failure) -> list[ImportFinding]:
    match = DISTRIBUTION.search(failure.message)
    try:
        wanted = Requirement((match["one"] or match["two"]) if match else _first_words(failure.message))
    except (InvalidRequirement, RecursionError):
        return []
    name = str(canonicalize_name(wanted.name))
    suggestion = str(wanted) if is_popular(name) else meant(name)
    return [ImportFinding(module=wanted.name, path=failure.path, line=failure.line, suggestion=suggestion)]


def _first_words(message: str) -> str:
    return message.partition("\n")[0][:MAX_REQUIREMENT_LENGTH].strip("'")


def _of_advice(failure: _Failure) -> list[ImportFinding]:
    """What the error itself says to install: libraries word so what they cannot do without a further package."""
    for hint in find_hints(failure.message.encode("utf-8", "replace")):
        if is_popular(hint.name):
            return [
                ImportFinding(
                    module=hint.name, path=failure.path, line=failure.line, suggestion=hint.specifier, note=failure.note
                )
            ]
    return []
