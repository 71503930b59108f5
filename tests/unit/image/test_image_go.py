"""The sandbox's programs around Go that can be tested outside it: the inventory, and what an install keeps."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sandbox.image.go import install_modules, inventory, link_modules, run_program
from services.resolver.go.inventory import read_inventory

if TYPE_CHECKING:
    from collections.abc import Callable

PATH, VERSION = "github.com/BurntSushi/toml", "v1.0.0+incompatible"
ESCAPED = "github.com/!burnt!sushi/toml"
FILES = {"LICENSE": b"MIT License", "a.go": b"package toml\n", "sub/B.go": b"package sub\n"}


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """One module, as the go command lays it out."""
    for name, content in FILES.items():
        path = tmp_path / "mod" / f"{ESCAPED}@{VERSION}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    downloads = tmp_path / "mod/cache/download" / ESCAPED / "@v"
    downloads.mkdir(parents=True)
    for suffix in ("ziphash", "zip", "lock", "mod"):
        (downloads / f"{VERSION}.{suffix}").write_text("")
    (tmp_path / "graph.txt").write_text(f"program {PATH}@{VERSION}\nnonsense\n")
    return tmp_path


def hash_of(files: dict[str, bytes]) -> str:
    """As Go's dirhash defines it."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {PATH}@{VERSION}/{name}\n" for name in sorted(files)]
    return "h1:" + base64.b64encode(hashlib.sha256("".join(lines).encode()).digest()).decode()


def taken(environment: Path, capsys: pytest.CaptureFixture[str]) -> bytes:
    assert inventory.main([str(environment)]) == 0
    return capsys.readouterr().out.encode()


def test_the_inventory_computes_hashes_from_files(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_inventory(taken(environment, capsys))
    module = found.modules[PATH]
    assert (module.version, module.hash) == (VERSION, hash_of(FILES))
    assert [(item.name, item.text) for item in module.licenses] == [("LICENSE", "MIT License")]
    assert found.edges == ((("program", ""), (PATH, VERSION)),)


@pytest.mark.parametrize(
    "change",
    [
        lambda directory: (directory / "a.go").write_bytes(b"package evil\n"),
        lambda directory: (directory / "more.go").write_bytes(b""),
        lambda directory: (directory / "a.go").unlink(),
        lambda directory: (directory / "a.go").rename(directory / "b.go"),
    ],
)
def test_any_change_of_a_module_changes_its_hash(
    environment: Path, change: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    change(environment / "mod" / f"{ESCAPED}@{VERSION}")
    assert read_inventory(taken(environment, capsys)).modules[PATH].hash != hash_of(FILES)


def test_a_link_in_a_module_is_refused(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (environment / "mod" / f"{ESCAPED}@{VERSION}" / "c.go").symlink_to("/etc/passwd")
    assert inventory.main([str(environment)]) == 1
    assert "is a link" in capsys.readouterr().err


def test_a_module_that_is_gone_has_no_hash(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (environment / "mod" / f"{ESCAPED}@{VERSION}").rename(environment / "elsewhere")
    assert read_inventory(taken(environment, capsys)).modules[PATH].hash == ""


def test_only_what_is_wanted_stays_in_the_cache(environment: Path) -> None:
    cache = environment / "mod"
    wanted = (install_modules.escape(PATH), VERSION)
    install_modules.prune(cache, {wanted})
    assert sorted(path.suffix for path in cache.rglob(f"cache/**/{VERSION}.*")) == [".mod", ".ziphash"]
    assert (cache / f"{ESCAPED}@{VERSION}").is_dir()
    install_modules.prune(cache, set())
    assert not (cache / f"{ESCAPED}@{VERSION}").exists()
    assert list(inventory.modules(str(cache))) == []


def test_lines_of_archives_that_are_not_installed_are_left_out(tmp_path: Path) -> None:
    sums = tmp_path / "go.sum"
    sums.write_text("a.b/c v1.0.0 h1:x=\na.b/c v1.0.0/go.mod h1:y=\na.b/d v1.0.0 h1:z=\na.b/d v1.0.0/go.mod h1:w=\n")
    kept = install_modules.kept_sums(sums, [("a.b/c", "v1.0.0")])
    assert kept == "a.b/c v1.0.0 h1:x=\na.b/c v1.0.0/go.mod h1:y=\na.b/d v1.0.0/go.mod h1:w=\n"
    assert install_modules.kept_sums(tmp_path / "none", []) == ""


def test_each_package_is_built_in_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    places = [run_program.place_of(packages) for packages in (["./cmd/a"], ["./cmd/b"], ["./main.go", "./x.go"], ["."])]
    assert [place.name for place in places] == ["a", "b", "main", tmp_path.name]
    assert len({place.parent for place in places}) == len(places)
    assert run_program.place_of(["./cmd/a"]) == places[0]


def test_modules_are_linked_and_lead_to_the_last_environment(environment: Path, tmp_path: Path) -> None:
    cache, module = tmp_path / "cache", f"{ESCAPED}@{VERSION}"
    assert link_modules.main([str(environment), str(cache)]) == 0
    assert (cache / module / "a.go").read_bytes() == FILES["a.go"]
    assert (cache / f"cache/download/{ESCAPED}/@v/{VERSION}.ziphash").is_symlink()
    other = environment.rename(environment.with_name("other"))
    cache = other / "cache"
    assert link_modules.main([str(other), str(cache)]) == 0
    assert (cache / module).resolve() == other / "mod" / module
    assert (cache / "linked").read_text() == f"{other}\n"


def test_what_is_in_the_way_of_a_link_is_told(environment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cache = environment / "cache"
    (cache / f"{ESCAPED}@{VERSION}" / "own").mkdir(parents=True)
    assert link_modules.main([str(environment), str(cache)]) == 1
    assert capsys.readouterr().err
    assert not (cache / "linked").exists()
