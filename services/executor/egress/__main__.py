"""The doors process: `python -m services.executor.egress --control-fd N --config JSON`; see `config.py`."""

import argparse
import asyncio

# Imported for their side effect: once root is given up, the interpreter's own files may be out of reach, and these are
# what the standard library would import only at the first look-up of a host.
import concurrent.futures.thread  # noqa: F401  # see above
import encodings.idna  # noqa: F401  # see above
import logging
import os
import socket
import sys
from pathlib import Path

import structlog

from services.executor.egress.cache.disk import open_cache
from services.executor.egress.config import DoorsConfig
from services.executor.egress.connect_hosts import InvalidConnectHosts, connect_hosts
from services.executor.egress.control import InvalidMessage
from services.executor.egress.package_rules import NO_POLICY, InvalidPackagePolicy, load_package_policy
from services.executor.egress.privileges import drop_privileges
from services.executor.egress.registries import InvalidRegistries, load_registries
from services.executor.egress.serving import serve
from services.executor.egress.upstream import tls_context
from services.executor.egress.workers import Workers

_log = structlog.get_logger()

_DISK_THREADS = 8


def main() -> int:
    """Run until the executor closes the control channel; 0, or 1 after one line that says why not."""
    arguments = _parse_arguments()
    _configure_logging()
    control = socket.socket(fileno=arguments.control_fd)
    peer_uid = os.geteuid()
    config = DoorsConfig.from_argument(arguments.config)
    try:
        # These lie where the machine's owner may keep them from the user that the doors become.
        registries = load_registries(config.registries)
        policy = NO_POLICY if config.package_policy is None else load_package_policy(config.package_policy)
        hosts = connect_hosts(config.connect_hosts, registries=registries, registries_open=config.connect_registries)
        context = tls_context()
        cache_root = _open_directory(config.cache_directory)
        drop_privileges(uid=config.uid, gid=config.gid)
        workers = Workers(name="disk", threads=_DISK_THREADS)
        cache = open_cache(cache_root, limit=config.cache_bytes, workers=workers)
        asyncio.run(
            serve(
                control=control,
                peer_uid=peer_uid,
                registries=registries,
                policy=policy,
                traffic=config.traffic,
                connect_hosts=hosts,
                context=context,
                cache=cache,
                workers=workers,
            )
        )
    except (InvalidRegistries, InvalidPackagePolicy, InvalidConnectHosts, InvalidMessage, OSError) as error:
        _log.error("doors stopped", error=str(error))
        return 1
    return 0


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.executor.egress", description=__doc__)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--config", required=True)
    return parser.parse_args()


def _open_directory(path: Path | None) -> int | None:
    """A descriptor through which the directory can be used without the right to reach it."""
    return None if path is None else os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _configure_logging() -> None:
    # Every line is one JSON object in ASCII: no value of a sandbox can break it or move a terminal's cursor.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
    )
    # Libraries that log by themselves would write plain lines.
    logging.getLogger().addHandler(logging.NullHandler())


if __name__ == "__main__":
    sys.exit(main())
