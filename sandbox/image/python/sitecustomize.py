"""Lets every Python of the sandbox find the packages that Qila installed. `site` imports it at each start.

The environment is the directory that `QILA_PYTHON_ENV` names (an empty value: none), else the one that
`/sandbox/.qila/current/python` links to. Its packages come before the system's and after the user's own, so that
what somebody installs by hand wins. For `<root>/env/python/<fingerprint>/lib/a/b.py` the compiled form is
`<root>/bytecode/python/<fingerprint>/a/b.pyc`: a program can read either and write neither.
"""

# ruff: noqa: PTH112, PTH118, PTH120, PTH123 -- every start of Python pays for what is imported here, and pathlib is dear
import marshal
import os
import site
import sys

CURRENT_ENVIRONMENT = "/sandbox/.qila/current/python"
HEADER_SIZE = 16
# The second word of a compiled file's header: checked by hash, and that check waived.
UNCHECKED_HASH = (1).to_bytes(4, "little")


def environment_directory() -> str:
    """The real path of the environment in force, or an empty string."""
    chosen = os.environ.get("QILA_PYTHON_ENV", CURRENT_ENVIRONMENT)
    return os.path.realpath(chosen) if chosen else ""


def bytecode_directory(environment: str) -> str:
    """Where the compiled form of an environment lies."""
    ecosystem_directory, fingerprint = os.path.split(environment)
    environments, ecosystem = os.path.split(ecosystem_directory)
    return os.path.join(os.path.dirname(environments), "bytecode", ecosystem, fingerprint)


def bytecode_path(source_path: str, library: str, bytecode: str) -> str:
    """The compiled form of a module below `library`."""
    return f"{bytecode}{source_path.removeprefix(library)}c"


def read_bytecode(path: str, magic: bytes) -> object:
    """What a compiled file holds, or None if there is none that this Python may use."""
    try:
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        if data[: HEADER_SIZE // 2] != magic + UNCHECKED_HASH:
            return None
        return marshal.loads(memoryview(data)[HEADER_SIZE:])  # noqa: S302 -- as Python itself loads compiled files
    except (OSError, EOFError, TypeError, ValueError):
        return None


def add_bytecode_hook(library: str, bytecode: str) -> None:
    """Makes imports from `library` read compiled files below `bytecode` where there are any."""
    # Imported here, because a start without an environment has no use for them.
    from importlib import machinery, util  # noqa: PLC0415
    from types import CodeType  # noqa: PLC0415

    class Loader(machinery.SourceFileLoader):
        """Loads a module by its compiled form, else as Python does."""

        def get_code(self, fullname: str) -> CodeType | None:
            code = read_bytecode(bytecode_path(self.path, library, bytecode), util.MAGIC_NUMBER)
            return code if isinstance(code, CodeType) else super().get_code(fullname)

    loaders = (
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (Loader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )

    def finder(path: str) -> machinery.FileFinder:
        if path == library or path.startswith(library + "/"):
            return machinery.FileFinder(path, *loaders)
        raise ImportError(path)

    sys.path_hooks.insert(0, finder)


def add_packages(library: str) -> None:
    """Adds `library` and what its `.pth` files name to the path: after the user's packages, before the system's."""
    before = list(sys.path)
    site.addsitedir(library)
    added = [entry for entry in sys.path if entry not in before]
    system = site.getsitepackages()
    position = next((index for index, entry in enumerate(before) if entry in system), len(before))
    sys.path[:] = before[:position] + added + before[position:]


def main() -> None:
    """Sets this interpreter up, unless it belongs to a virtual environment, which has packages of its own."""
    environment = environment_directory()
    library = f"{environment}/lib"
    if not environment or sys.prefix != sys.base_prefix or not os.path.isdir(library):
        return
    bytecode = bytecode_directory(environment)
    if not sys.flags.optimize and os.path.isdir(bytecode):
        add_bytecode_hook(library, bytecode)
    add_packages(library)


main()
