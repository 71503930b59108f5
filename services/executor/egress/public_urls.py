"""Which public address each of the mirror's addresses stands for: a lockfile that leaves the sandbox names those."""

from collections.abc import Mapping
from typing import Final

from services.executor.egress.registries import Registries

# Where the mirror listens inside every sandbox.
MIRROR: Final = "http://127.0.0.1:7480"


def public_urls(registries: Registries) -> Mapping[str, str]:
    """From the mirror's prefix to the registry's, both with "/" at the end."""
    return {
        f"{MIRROR}/pypi/simple/": f"{registries.pypi.url('index')}/simple/",
        f"{MIRROR}/pypi/files/": f"{registries.pypi.url('files')}/",
        f"{MIRROR}/npm/": f"{registries.npm.url('registry')}/",
        f"{MIRROR}/go/": f"{registries.go.url('proxy')}/",
        f"{MIRROR}/maven/": f"{registries.maven.url('central')}/maven2/",
    }
