import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.executor.egress.ecosystems.go_paths import (
    DatabaseRequest,
    LatestRequest,
    ListRequest,
    LookupRequest,
    SupportedRequest,
    VersionRequest,
    escape,
    is_version,
    parse_path,
    precedence,
)

DATABASE = "sum.example"
UUID = "github.com/google/uuid"
TOML = "github.com/BurntSushi/toml"
PSEUDO = "v0.0.0-20161128191214-064e2069ce9c"


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (f"/{UUID}/@v/list", ListRequest(module=UUID)),
        (f"/{UUID}/@latest", LatestRequest(module=UUID)),
        (f"/{UUID}/@v/v1.6.0.info", VersionRequest(module=UUID, version="v1.6.0", kind="info")),
        (f"/{UUID}/@v/v1.6.0.mod", VersionRequest(module=UUID, version="v1.6.0", kind="mod")),
        (f"/{UUID}/@v/v1.6.0.zip", VersionRequest(module=UUID, version="v1.6.0", kind="zip")),
        (f"/{UUID}/@v/{PSEUDO}.zip", VersionRequest(module=UUID, version=PSEUDO, kind="zip")),
        ("/github.com/!burnt!sushi/toml/@v/list", ListRequest(module=TOML)),
        ("/github.com/%21burnt%21sushi/toml/@v/list", ListRequest(module=TOML)),
        (
            "/example.com/a/@v/v2.0.0+incompatible.mod",
            VersionRequest(module="example.com/a", version="v2.0.0+incompatible", kind="mod"),
        ),
        (
            "/example.com/a/@v/v2.0.0%2Bincompatible.mod",
            VersionRequest(module="example.com/a", version="v2.0.0+incompatible", kind="mod"),
        ),
        (
            "/example.com/a/@v/v1.0.0-!r!c.1.info",
            VersionRequest(module="example.com/a", version="v1.0.0-RC.1", kind="info"),
        ),
        ("/example.com/@v/list", ListRequest(module="example.com")),
        ("/gopkg.in/yaml.v3/@v/list", ListRequest(module="gopkg.in/yaml.v3")),
        ("/git.sr.ht/~user/a_b-c/v2/@v/list", ListRequest(module="git.sr.ht/~user/a_b-c/v2")),
        ("/sumdb/sum.example/supported", SupportedRequest()),
        ("/sumdb/sum.example/latest", DatabaseRequest(path="latest", immutable=False)),
        (
            "/sumdb/sum.example/lookup/github.com/!burnt!sushi/toml@v1.6.0",
            LookupRequest(module=TOML, version="v1.6.0"),
        ),
        ("/sumdb/sum.example/tile/8/0/x022/152", DatabaseRequest(path="tile/8/0/x022/152", immutable=True)),
        ("/sumdb/sum.example/tile/8/3/000.p/4", DatabaseRequest(path="tile/8/3/000.p/4", immutable=False)),
        ("/sumdb/sum.example/tile/8/data/001", DatabaseRequest(path="tile/8/data/001", immutable=True)),
    ],
)
def test_paths(path: str, request_: object) -> None:
    assert parse_path(path, database=DATABASE) == request_


NO_MODULES = {
    "no host": "uuid",
    "host without a dot": "localhost/x",
    "an address": "169.254.169.254/latest",
    "an address in short": "127.1/x",
    "a port": "evil.example:8080/x",
    "a user": "user@evil.example/x",
    "a capital": "github.com/BurntSushi/toml",
    "an escaped digit": "github.com/!1/x",
    "an escape at the end": "github.com/x!",
    "a capital in the host": "!github.com/x",
    "an underscore in the host": "git_hub.com/x",
    "a hyphen first": "-github.com/x",
    "the parent directory": "github.com/../x",
    "the parent directory, encoded": "github.com/%2e%2e/x",
    "the same directory": "github.com/./x",
    "a dot first": "github.com/.git",
    "a dot last": "github.com/x.",
    "a dot last in the middle": "github.com/x./y",
    "an encoded slash": "github.com%2fx",
    "a twice encoded escape": "github.com/%2521x",
    "an empty element": "github.com//x",
    "a leading slash": "/github.com/x",
    "a trailing slash": "github.com/x/",
    "a backslash": "github.com\\x",
    "a query": "github.com/x?go-get=1",
    "a fragment": "github.com/x#y",
    "a line end": "github.com/x\n",
    "a NUL": "github.com/x\0",
    "a letter that looks like another": "g\u0456thub.com/x",
    "too long": f"github.com/{'x' * 250}",
    "a plus": "github.com/c++",
}


@pytest.mark.parametrize("module", NO_MODULES.values(), ids=NO_MODULES)
@pytest.mark.parametrize(
    "form", ["/{}/@v/list", "/{}/@latest", "/{}/@v/v1.0.0.zip", "/sumdb/sum.example/lookup/{}@v1.0.0"]
)
def test_no_such_module(form: str, module: str) -> None:
    assert parse_path(form.format(module), database=DATABASE) is None


NO_VERSIONS = {
    "no v": "1.0.0",
    "two numbers": "v1.0",
    "a leading zero": "v1.00.0",
    "a branch": "master",
    "a commit": "064e2069ce9c",
    "latest": "latest",
    "the parent directory": "..",
    "an encoded slash": "v1.0.0%2f..",
    "a slash": "v1.0.0/x",
    "other build metadata": "v1.0.0+build",
    "an empty pre-release": "v1.0.0-",
    "a pre-release number with a leading zero": "v1.0.0-01",
    "a capital": "v1.0.0-RC1",
    "a second file": "v1.0.0.info",
    "a query": "v1.0.0?x",
    "a line end": "v1.0.0\n",
    "another at": "v1.0.0@v1.0.0",
    "too long": f"v1.0.0-{'x' * 128}",
    "nothing": "",
}


@pytest.mark.parametrize("version", NO_VERSIONS.values(), ids=NO_VERSIONS)
@pytest.mark.parametrize("form", ["/example.com/a/@v/{}.zip", "/sumdb/sum.example/lookup/example.com/a@{}"])
def test_no_such_version(form: str, version: str) -> None:
    assert parse_path(form.format(version), database=DATABASE) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/@v/list",
        "/@latest",
        "/example.com/a",
        "/example.com/a/@v/",
        "/example.com/a/@v/list/",
        "/example.com/a/@v/list.info",
        "/example.com/a/@v/v1.0.0.ziphash",
        "/example.com/a/@v/v1.0.0.lock",
        "/example.com/a/@v/v1.0.0",
        "/example.com/a/@v/v1.0.0.info/@v/list",
        "/example.com/a/@v/../@latest",
        "/example.com/a/@V/list",
        "/example.com/a/%40v/list",
        "/example.com/a/@latest/",
        "/cached-only/example.com/a/@v/list",
        "example.com/a/@v/list",
        "http://127.0.0.1/example.com/a/@v/list",
    ],
)
def test_no_such_path(path: str) -> None:
    assert parse_path(path, database=DATABASE) is None


@pytest.mark.parametrize(
    "path",
    [
        "/sumdb/sum.example",
        "/sumdb/sum.example/",
        "/sumdb/sum.example//latest",
        "/sumdb/sum.example/latest/",
        "/sumdb/evil.example/latest",
        "/sumdb/sum.example.evil.example/latest",
        "/sumdb/sum.example/../evil.example/latest",
        "/sumdb/evil.example/sumdb/sum.example/latest",
        "/sumdb/sum.example/lookup/",
        "/sumdb/sum.example/lookup/example.com/a",
        "/sumdb/sum.example/lookup/example.com/a@v1.0.0/go.mod",
        "/sumdb/sum.example/tile/8/0/../../latest",
        "/sumdb/sum.example/tile/9/0/000",
        "/sumdb/sum.example/tile/8/8/000",
        "/sumdb/sum.example/tile/8/0/0",
        "/sumdb/sum.example/tile/8/0/1000",
        "/sumdb/sum.example/tile/8/0/000/000",
        "/sumdb/sum.example/tile/8/0/x000",
        "/sumdb/sum.example/tile/8/0/000.p/0",
        "/sumdb/sum.example/tile/8/0/000.p/01",
        "/sumdb/sum.example/tile/8/0/000.p/256",
        "/sumdb/sum.example/tile/8/0/000.p/1000",
        f"/sumdb/sum.example/tile/8/0/{'x000/' * 7}000",
        "/sumdb/sum.example/tile/8/0/000?x",
    ],
)
def test_no_such_page_of_the_checksum_database(path: str) -> None:
    assert parse_path(path, database=DATABASE) is None


def test_versions_sort_by_precedence() -> None:
    oldest_first = [
        PSEUDO, "v0.9.0", "v1.0.0-alpha", "v1.0.0-alpha.1", "v1.0.0-alpha.beta", "v1.0.0-beta.2", "v1.0.0-beta.11",
        "v1.0.0-rc.1", "v1.0.0", "v1.2.0", "v1.10.0", "v2.0.0+incompatible",
    ]  # fmt: skip  # one line of versions reads better than twelve
    newest_first = oldest_first[::-1]
    assert sorted(newest_first, key=precedence) == oldest_first


module_paths = st.from_regex(r"[a-z0-9-]{1,8}(\.[a-z]{1,4}){1,2}(/[A-Za-z0-9._~-]{1,6}){0,4}", fullmatch=True)


@given(module=module_paths)
def test_what_is_escaped_is_read_back(module: str) -> None:
    request = parse_path(f"/{escape(module)}/@v/list", database=DATABASE)
    assert request is None or request == ListRequest(module=module)


@given(version=st.from_regex(r"v[0-9]\.[0-9]{1,2}\.[0-9](-[0-9A-Za-z.-]{1,8})?(\+incompatible)?", fullmatch=True))
def test_a_version_is_read_back_or_none(version: str) -> None:
    request = parse_path(f"/example.com/a/@v/{escape(version)}.mod", database=DATABASE)
    expected = VersionRequest(module="example.com/a", version=version, kind="mod") if is_version(version) else None
    assert request == expected
