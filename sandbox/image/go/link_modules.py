"""Links the modules of an environment into the user's module cache.

Usage: link_modules.py ENVIRONMENT MODULE-CACHE

Where a module lies is part of what the build cache goes by. Under one path for all environments, a module is compiled
once, and an environment with one more module costs the compilation of that one. MODULE-CACHE/linked names the
environment that was linked last, whose modules all links of that name lead to.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Of what the go command keeps of a download, what it reads again.
KEPT = (".info", ".mod", ".ziphash")
LINKED = "linked"


def links(environment: Path) -> Iterator[str]:
    """What is to be linked, relative to the module cache: the directories of modules, and records of downloads."""
    downloads = environment / "mod/cache/download"
    for directory, _, files in os.walk(downloads):
        place = Path(directory)
        if place.name != "@v":
            continue
        path = str(place.parent.relative_to(downloads))
        for name in files:
            if name.endswith(KEPT):
                yield f"cache/download/{path}/@v/{name}"
            if name.endswith(".ziphash"):
                yield f"{path}@{name.removesuffix('.ziphash')}"


def link(target: Path, place: Path) -> None:
    """Puts a link in place of another at once, so that a build that runs meanwhile finds one or the other."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(place)


def main(arguments: list[str]) -> int:
    """Answers with an exit code: 0 linked, 1 something is in the way, 2 wrong arguments."""
    if len(arguments) != 2:  # noqa: PLR2004 -- see the usage
        sys.stderr.write("usage: link_modules.py ENVIRONMENT MODULE-CACHE\n")
        return 2
    environment, cache = map(Path, arguments)
    try:
        (cache / LINKED).unlink(missing_ok=True)
        for path in links(environment):
            link(environment / "mod" / path, cache / path)
        record = cache / f".{os.getpid()}"
        cache.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{environment}\n")
        record.replace(cache / LINKED)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
