from __future__ import annotations

from services.executor.egress.ecosystems.pypi_paths import file_path
from services.executor.egress.public_urls import MIRROR, public_urls
from services.executor.egress.registries import load_registries


def test_each_door_stands_for_a_public_address() -> None:
    registries = load_registries()
    urls = public_urls(registries)
    assert urls[f"{MIRROR}/npm/"] == "https://registry.npmjs.org/"
    assert set(registries.hosts) - {public.split("/")[2] for public in urls.values()} == {"sum.golang.org"}
    assert all(address.endswith("/") and public.endswith("/") for address, public in urls.items())
    file = MIRROR + file_path(stored_path="packages/x", sha256="0" * 64, metadata_sha256=None)
    prefix = next(address for address in urls if file.startswith(address))
    assert file.removeprefix(prefix).split("/", 2)[2] == "packages/x"
