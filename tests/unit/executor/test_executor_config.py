import pytest

from services.executor.config import ExecutorConfig, read_config
from services.rpc.config import ConfigError, Environment


def read(**variables: str) -> ExecutorConfig:
    return read_config(Environment({"QILA_SANDBOX_IMAGE": "image:tag", **variables}))


def test_connect_is_closed_by_default() -> None:
    config = read()
    assert (config.connect_hosts, config.connect_registries) == ((), False)
    assert (read(QILA_CONNECT_HOSTS="").connect_hosts, read(QILA_CONNECT_REGISTRIES="").connect_registries) == (
        (),
        False,
    )


def test_connect_hosts_are_a_list_of_exact_names() -> None:
    config = read(QILA_CONNECT_HOSTS="plugins.example.org, data.example.org", QILA_CONNECT_REGISTRIES="true")
    assert config.connect_hosts == ("plugins.example.org", "data.example.org")
    assert config.connect_registries


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *[
            ("QILA_CONNECT_HOSTS", hosts)
            for hosts in (",", "a.example,", "a.example,,b.example", "*.example.org", "*", "Plugins.example.org",
                          "plugins.example.org.", "plugins.example.org:443", "https://plugins.example.org",
                          "127.0.0.1", "0x7f.1", "[::1]", "localhost", "a.example b.example", "u@a.example")
        ],
        *[
            ("QILA_IMAGES", images)
            for images in ("go", "go=", "=image", "go=a,", "go=a,go=b", "default=a", "Go=a", "-go=a", "../x=a",
                           "go=a b", "go=-a", "go=a=b", f"{'g' * 65}=a", f"go={'a' * 256}",
                           ",".join(f"i{number}=a" for number in range(33)))
        ],
        *[("QILA_CONNECT_REGISTRIES", flag) for flag in ("yes", "1", "TRUE", "on")],
        ("QILA_MIRROR_CACHE_SIZE", "-1"),
    ],
)  # fmt: skip  # a table of one column reads best in rows
def test_a_bad_value_stops_the_service(variable: str, value: str) -> None:
    with pytest.raises(ConfigError) as refused:
        read(**{variable: value})
    assert refused.value.variable == variable


@pytest.mark.parametrize(("text", "size"), [("", 10 << 30), ("0", 0), ("512MiB", 512 << 20)])
def test_the_size_of_the_mirror_cache(text: str, size: int) -> None:
    assert read(QILA_MIRROR_CACHE_SIZE=text).mirror_cache_bytes == size


def test_images_by_name() -> None:
    assert read().images == {}
    digest = f"registry.example.org:5000/qila@sha256:{'0' * 64}"
    found = read(QILA_IMAGES=f"go1.26=qila-sandbox:go, java_25={digest}").images
    assert found == {"go1.26": "qila-sandbox:go", "java_25": digest}
    assert len(read(QILA_IMAGES=",".join(f"i{number}=a" for number in range(32))).images) == 32
