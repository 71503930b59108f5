import pytest

from services.executor.config import read_config
from services.rpc.config import ConfigError, Environment

REQUIRED = {"QILA_SANDBOX_IMAGE": "image", "QILA_RUN_DIR": "/run/qila"}


@pytest.mark.parametrize(("text", "size"), [("", 10 << 30), ("0", 0), ("512MiB", 512 << 20)])
def test_the_size_of_the_mirror_cache(text: str, size: int) -> None:
    config = read_config(Environment({**REQUIRED, "QILA_MIRROR_CACHE_SIZE": text}))
    assert config.mirror_cache_bytes == size


def test_a_size_that_is_none() -> None:
    with pytest.raises(ConfigError, match="QILA_MIRROR_CACHE_SIZE"):
        read_config(Environment({**REQUIRED, "QILA_MIRROR_CACHE_SIZE": "-1"}))
