"""Real clients inside a real sandbox, through the CONNECT door to real registries, trusting whom the host trusts."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.executor.egress.config import DoorsConfig
from services.executor.egress.door_process import Doors
from services.executor.egress.policy import EgressPolicy
from services.executor.egress.records import EgressRecord
from services.executor.egress.registries import load_registries
from services.executor.trust import TrustStore, host_bundle

pytestmark = pytest.mark.docker

NAME = "sb_" + "c" * 26
PROXY = {"HTTPS_PROXY": "http://127.0.0.1:7481", "https_proxy": "http://127.0.0.1:7481", "NO_PROXY": ""}
REGISTRIES = load_registries()
INDEX = REGISTRIES.pypi.origins["index"].host
FILES = REGISTRIES.pypi.origins["files"].host
GO = REGISTRIES.go.origins["proxy"].host
PAGE = f"https://{INDEX}/simple/six/"

_JAVA = """
import java.net.URI; import java.net.http.*;
public class Get { public static void main(String[] a) throws Exception {
  var client = HttpClient.newBuilder().proxy(java.net.ProxySelector.getDefault()).build();
  var request = HttpRequest.newBuilder(URI.create(a[0])).build();
  System.out.println(client.send(request, HttpResponse.BodyHandlers.ofString()).statusCode()); } }
"""
_URL_CONNECTION = """
public class Get { public static void main(String[] a) throws Exception {
  var connection = (java.net.HttpURLConnection) java.net.URI.create(a[0]).toURL().openConnection();
  System.out.println(connection.getResponseCode()); } }
"""
_RUN_JAVA = f"E\njava -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=7481 /tmp/Get.java {PAGE}"
_PYTHON = f"import urllib.request as r; print(r.urlopen('{PAGE}', timeout=60).status)"
CLIENTS = {
    "python": f'python3 -c "{_PYTHON}"',
    "pip": f"pip download -q --no-deps --index-url https://{INDEX}/simple -d /tmp/pip six && echo 200",
    "uv": f"uv -q --no-config --no-cache pip install --default-index https://{INDEX}/simple --target /tmp/uv six"
    " && echo 200",
    "node": f"NODE_USE_ENV_PROXY=1 node -e 'fetch(\"{PAGE}\").then(r => console.log(r.status))'",
    "openssl": f"openssl s_client -proxy 127.0.0.1:7481 -connect {INDEX}:443 -servername {INDEX} -verify_return_error"
    " </dev/null >/tmp/o 2>&1 && echo 200 || cat /tmp/o",
    "java http client": f"cat > /tmp/Get.java <<'E'\n{_JAVA}{_RUN_JAVA}",
    "java url connection": f"cat > /tmp/Get.java <<'E'\n{_URL_CONNECTION}{_RUN_JAVA}",
    "go": f"cd /tmp && GOPATH=/tmp/go GOMODCACHE=/tmp/mod GOFLAGS=-modcacherw GONOSUMDB=* GOPROXY=https://{GO}"
    " go mod download -json rsc.io/quote@v1.5.2 && echo 200",
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as made:
        TrustStore(host_bundle(os.environ), made.directory / "store").give(made.directory)
        yield made


@asynccontextmanager
async def opened(
    sandbox: Sandbox, policy: EgressPolicy, *, registries_open: bool = True
) -> AsyncIterator[asyncio.Queue[EgressRecord]]:
    records: asyncio.Queue[EgressRecord] = asyncio.Queue()
    config = DoorsConfig(uid=65534, gid=65534, connect_registries=registries_open)
    doors = Doors(config, on_egress=records.put_nowait)
    await doors.start()
    try:
        await doors.open(NAME, sandbox.doors, policy)
        yield records
    finally:
        await doors.stop()


async def run(sandbox: Sandbox, script: str, user: str = "program") -> str:
    _, out, err = await asyncio.to_thread(sandbox.run, "bash", "-c", script, env=PROXY, user=user)
    return str((out + err).decode())


@pytest.mark.parametrize("client", list(CLIENTS))
async def test_a_client_reaches_a_registry(sandbox: Sandbox, client: str) -> None:
    async with opened(sandbox, EgressPolicy(registries=True)) as records:
        said = await run(sandbox, CLIENTS[client])
        assert said.strip().splitlines()[-1:] == ["200"], said
        record = await asyncio.wait_for(records.get(), 20)
    assert (record.verdict, record.rule, record.method, record.uid) == ("allowed", "connect", "CONNECT", 1000)
    assert record.host in {INDEX, FILES, GO}
    assert record.path == f"{record.host}:443"
    assert record.bytes > 1000


async def test_registries_are_closed_to_connect_unless_the_operator_opens_them(sandbox: Sandbox) -> None:
    async with opened(sandbox, EgressPolicy(registries=True), registries_open=False) as records:
        said = await run(sandbox, CLIENTS["python"])
        record = await asyncio.wait_for(records.get(), 20)
    # Programs show the first line of a proxy's answer: that is where the advice is.
    assert f"403 Qila: {INDEX} is reached through the mirror" in said
    assert (record.verdict, record.rule, record.status) == ("refused", "connect: registry", 403)


async def test_without_the_hosts_authorities_programs_have_the_images_own(sandbox: Sandbox) -> None:
    aside = sandbox.directory / f"aside-{secrets.token_hex(4)}"
    (sandbox.directory / "trust").rename(aside)
    try:
        count = "import ssl; c = ssl.create_default_context(); print(c.get_ciphers() != [], c.cert_store_stats())"
        assert "True" in await run(sandbox, f'python3 -c "{count}"')
        assert "NODE_EXTRA_CA_CERTS" not in await run(sandbox, "env")
        assert "keystore contains 1" in await run(sandbox, "keytool -list -cacerts -storepass changeit | head -5")
        assert "Warning" not in await run(sandbox, "node -e 'require(\"tls\").createSecureContext()'")
    finally:
        aside.rename(sandbox.directory / "trust")


async def test_programs_cannot_change_whom_others_trust(sandbox: Sandbox) -> None:
    script = """
    for file in /run/qila/trust/ca.pem /run/qila/trust/java.p12 /run/qila/trust/x /run/qila/x; do
        echo x >> $file || echo refused
        rm -f $file && echo gone
    done 2> /dev/null
    ls /run/qila/trust
    """
    for user in ("program", "install"):
        said = await run(sandbox, script, user)
        # What does not exist is gone already.
        assert said == "refused\nrefused\nrefused\ngone\nrefused\ngone\nca.pem\njava.p12\n"
