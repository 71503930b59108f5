"""Runs an entry point of a project, as the command that an installer makes for it would.

Usage: run_script.py NAME MODULE:OBJECT [ARGUMENT ...]

The directories of the project are on PYTHONPATH; the program sees NAME as its own name.
"""

import sys
from functools import reduce
from importlib import import_module
from typing import Any


def main() -> Any:
    """What the entry point returns, which is the exit code as `sys.exit` takes it."""
    name, reference, *arguments = sys.argv[1:]
    module, _, attributes = reference.partition(":")
    # Python put the directory of this file there, which is none of the program's business.
    del sys.path[0]
    sys.argv = [name, *arguments]
    entry: Any = reduce(getattr, attributes.split("."), import_module(module))
    return entry()


if __name__ == "__main__":
    sys.exit(main())
