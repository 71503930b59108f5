"""`python -m services.resolver.worker MEMORY_BYTES CPU_SECONDS`: answers calls on its standard streams, one at a time.

It limits itself before it reads anything: memory once, processor time for each call. When a limit strikes, the process
dies and its pool starts another.
"""

from __future__ import annotations

import resource
import sys
import traceback
from typing import BinaryIO

from services.resolver.calls import CALLS, ERRORS, FAULT, OUT_OF_MEMORY, Envelope, Fault
from services.resolver.codec import LENGTH, pack, unpack
from services.resolver.errors import ResolverError
from services.resolver.python.scan import scan_source
from services.resolver.python.table import import_table, standard_library

EXPECTED_ARGUMENTS = 3


def main() -> None:
    """Serve until the input ends."""
    if len(sys.argv) != EXPECTED_ARGUMENTS:
        sys.exit("usage: python -m services.resolver.worker MEMORY_BYTES CPU_SECONDS")
    memory_bytes, cpu_seconds = int(sys.argv[1]), int(sys.argv[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warm_up()
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(pack(Envelope(kind="Ready")))
    answers.flush()
    while (envelope := read_message(requests)) is not None:
        limit_cpu(cpu_seconds)
        body = read_message(requests)
        if body is None:
            return
        answers.write(answer(unpack(Envelope, envelope).kind, body))
        answers.flush()


def warm_up() -> None:
    """Load what every plan needs, so that no caller waits for it."""
    import_table()
    standard_library()
    scan_source(b"import this\n", (3, 13))


def limit_cpu(seconds: int) -> None:
    """Allow that much processor time from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(used.ru_utime + used.ru_stime) + seconds + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.RLIM_INFINITY))


def read_message(stream: BinaryIO) -> bytes | None:
    """One message without its length, or None at the end."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    return stream.read(LENGTH.unpack(header)[0])


def answer(kind: str, body: bytes) -> bytes:
    """The two messages that answer a call: what kind it is, and the answer, error or fault itself."""
    try:
        call = unpack(CALLS[kind], body)
        return pack(Envelope(kind=kind)) + pack(call.run())
    except ResolverError as error:
        if type(error).__name__ not in ERRORS:
            raise
        return pack(Envelope(kind=type(error).__name__)) + pack(error)
    except MemoryError:
        return pack(Envelope(kind=OUT_OF_MEMORY)) + pack(Fault(detail=""))
    except Exception:  # noqa: BLE001 - hostile input found a fault of ours: the caller must hear of it, whatever it is
        return pack(Envelope(kind=FAULT)) + pack(Fault(detail=traceback.format_exc(limit=-8)))


if __name__ == "__main__":
    main()
