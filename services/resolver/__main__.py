"""`python -m services.resolver`: reads its configuration once, starts its workers, serves."""

from __future__ import annotations

import sys

from qila.resolver.v1 import resolver_pb2_grpc
from services.resolver.config import ResolverConfig, read_config
from services.resolver.servicer import ResolverServicer
from services.resolver.workers import WorkerCrashedError, WorkerLimits, WorkerPool, WorkerTimeoutError
from services.rpc import log
from services.rpc.config import StartError, run_service
from services.rpc.server import ServerConfig, build_server, serve

SERVICE_NAME = "qila.resolver.v1.ResolverService"
# A header has the lock that a sandbox was made with, and the newest lock of each ecosystem.
MAX_MESSAGE_BYTES = 40 << 20


async def main(config: ResolverConfig) -> None:
    """Run until told to stop; StartError if the workers or the server do not start."""
    log.configure("resolver", level=config.log_level)
    limits = WorkerLimits(
        deadline_seconds=config.deadline_seconds,
        cpu_seconds=max(1, int(config.deadline_seconds)),
        memory_bytes=config.memory_bytes,
    )
    pool = WorkerPool(config.workers, limits)
    try:
        # Before gRPC has threads.
        await pool.start()
        servicer = ResolverServicer(pool)
        server = await build_server(
            ServerConfig(
                address=f"unix:{config.run_directory / 'resolver.sock'}",
                service_names=(SERVICE_NAME,),
                max_message_bytes=MAX_MESSAGE_BYTES,
            ),
            [lambda server: resolver_pb2_grpc.add_ResolverServiceServicer_to_server(servicer, server)],
        )
        await serve(server)
    except (WorkerCrashedError, WorkerTimeoutError) as error:
        raise StartError(f"its workers do not start: {error}") from error
    finally:
        await pool.stop()


if __name__ == "__main__":
    sys.exit(run_service("resolver", read_config, main))
