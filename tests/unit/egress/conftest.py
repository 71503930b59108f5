import datetime
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from services.executor.egress.door_process import Doors
from services.executor.egress.limits import NO_LIMITS, TrafficLimits

from .harness import FakePypi, OpenDoors, StartDoors, open_doors, project


@pytest.fixture(scope="session")
def one_authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nobody's")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now,
        not_valid_after=now + datetime.timedelta(days=1),
    ).sign(key, hashes.SHA256())
    path = tmp_path_factory.mktemp("trust") / "ca.pem"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture(autouse=True, scope="module")
def trust(one_authority: Path) -> Iterator[None]:
    """No registry here speaks TLS, and to read all of the machine's authorities is a quarter of a process's start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(one_authority))
        yield


@pytest.fixture
async def pypi() -> AsyncIterator[FakePypi]:
    fake = FakePypi()
    runner = web.ServerRunner(web.Server(fake.answer), shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    fake.url = f"http://127.0.0.1:{port}"
    fake.project = project(fake.url)
    yield fake
    if fake.stall is not None:
        fake.stall.set()
    await runner.cleanup()


@pytest.fixture
async def start_doors(tmp_path: Path) -> AsyncIterator[StartDoors]:
    started: list[Doors] = []

    async def start(
        url: str,
        *,
        cache_bytes: int = 1 << 30,
        redirects: Sequence[str] = (),
        rules: str = "",
        traffic: TrafficLimits = NO_LIMITS,
    ) -> OpenDoors:
        opened = await open_doors(
            tmp_path, url, cache_bytes=cache_bytes, redirects=redirects, rules=rules, traffic=traffic
        )
        started.append(opened.doors)
        return opened

    yield start
    for doors in started:
        await doors.stop()


@pytest.fixture
async def opened(pypi: FakePypi, start_doors: StartDoors) -> OpenDoors:
    return await start_doors(pypi.url)


@pytest.fixture
def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
