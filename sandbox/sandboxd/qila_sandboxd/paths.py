"""Which paths the executor may name, and how an error of the file system is called on the wire."""

from __future__ import annotations

import errno

WORKSPACE = "/sandbox"
MAXIMUM_PATH_BYTES = 4096
MAXIMUM_PART_BYTES = 255

_KINDS = {
    errno.ENOENT: "not_found",
    errno.ENOTDIR: "not_a_directory",
    errno.EISDIR: "is_a_directory",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "too_large",
    errno.ENAMETOOLONG: "invalid_path",
    errno.ELOOP: "invalid_path",
    errno.EEXIST: "exists",
    errno.ENOTEMPTY: "exists",
}


class CallError(Exception):
    """A call that failed. `kind` is one of the protocol's words, `message` says what to do or what happened."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(kind, message)
        self.kind = kind
        self.message = message

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


def from_os_error(error: OSError, path: str) -> CallError:
    """Name an operating system's error as the protocol does."""
    kind = _KINDS.get(error.errno or 0, "io")
    return CallError(kind, f"{path}: {error.strerror or error}")


def checked(path: object) -> str:
    """Return `path` if it is a plain relative path below the workspace.

    Raises:
        CallError: `invalid_path`, with the rule that it breaks.
    """
    if not isinstance(path, str) or not path:
        raise CallError("invalid_path", "a path is a text that is not empty")
    try:
        encoded = path.encode()
    except UnicodeEncodeError as error:
        raise CallError("invalid_path", "a path is UTF-8") from error
    if len(encoded) > MAXIMUM_PATH_BYTES:
        raise CallError("invalid_path", f"a path has at most {MAXIMUM_PATH_BYTES} bytes, this one has {len(encoded)}")
    if b"\0" in encoded:
        raise CallError("invalid_path", "a path has no NUL byte")
    for part in encoded.split(b"/"):
        if part in {b"", b".", b".."}:
            raise CallError("invalid_path", f"{path}: a path is relative, without empty parts, `.` and `..`")
        if len(part) > MAXIMUM_PART_BYTES:
            raise CallError("invalid_path", f"a part of a path has at most {MAXIMUM_PART_BYTES} bytes")
    return path
