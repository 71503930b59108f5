"""Programs in a sandbox trust an authority that only the host knows, and none that it does not know."""

import datetime
import ipaddress
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sandboxd_harness import Sandbox  # type: ignore[import-not-found]  # pytest puts this directory on the path

from services.executor.trust import TrustStore

pytestmark = pytest.mark.docker

URL = "https://127.0.0.1:8443/"
_SERVER = """
import http.server, ssl
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('/sandbox/server.pem')
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8443), http.server.SimpleHTTPRequestHandler)
server.socket = context.wrap_socket(server.socket, server_side=True)
print('ready', flush=True)
server.serve_forever()
"""
_JAVA = f"""
public class Get {{ public static void main(String[] a) throws Exception {{
  var connection = (java.net.HttpURLConnection) java.net.URI.create("{URL}").toURL().openConnection();
  System.out.println(connection.getResponseCode()); }} }}
"""
_GO = f"""
package main
import ("fmt"; "net/http")
func main() {{
	answer, err := http.Get("{URL}")
	if err != nil {{ panic(err) }}
	fmt.Println(answer.StatusCode)
}}
"""
_PYTHON = f"python3 -c \"import urllib.request as r; print(r.urlopen('{URL}').status)\""
CLIENTS = {
    "python": _PYTHON,
    # Without the variables of a program's environment, by the links in the image alone.
    "openssl": f"env -i {_PYTHON}",
    "node": f"node -e 'fetch(\"{URL}\").then(r => console.log(r.status))'",
    "requests": "python3 -c \"import pip._vendor.requests as r; print(r.get('" + URL + "').status_code)\"",
    "java": f"cat > /tmp/Get.java <<'E'\n{_JAVA}E\nenv -i java /tmp/Get.java",
    "go": f"mkdir -p /sandbox/go && cd /sandbox/go && cat > main.go <<'E'\n{_GO}E\n"
    "cp -r /usr/lib/qila/gocache cache; env -i HOME=$PWD GOCACHE=$PWD/cache GOTMPDIR=$PWD PATH=$PATH go run main.go",
}


def authority() -> tuple[bytes, bytes]:
    """An authority that is its own server on 127.0.0.1: certificate, and certificate with key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "an authority of this test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    return certificate, certificate + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    certificate, with_key = authority()
    with Sandbox() as made:
        bundle = made.directory / "bundle.pem"
        bundle.write_bytes(certificate)
        TrustStore(bundle, made.directory / "store").give(made.directory)
        made.call("write", with_key, path="server.pem", executable=False)
        server = made.start("python3", "-c", _SERVER)
        made.wait("output", process=server)
        yield made


@pytest.mark.parametrize("client", list(CLIENTS))
def test_a_client_trusts_whom_the_host_trusts_and_nobody_else(sandbox: Sandbox, client: str) -> None:
    _, out, err = sandbox.run("bash", "-c", CLIENTS[client])
    assert out.decode().strip() == "200", err.decode()
    trust = sandbox.directory / "trust"
    trust.rename(sandbox.directory / "aside")
    try:
        _, out, err = sandbox.run("bash", "-c", CLIENTS[client])
        assert b"200" not in out
        assert b"certif" in err.lower() or b"PKIX" in err
    finally:
        (sandbox.directory / "aside").rename(trust)
