"""How programs are told their limits: variables that their runtimes read, instead of counting the host's processors."""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.executor.profile import Limits

# libuv's own default: its pool does blocking calls, which wait more than they compute.
UV_THREADS = 4
# Of the sandbox's memory; the rest is for what lies outside V8's heap, and for other processes.
NODE_HEAP_SHARE = 0.75


def limit_variables(limits: Limits) -> Mapping[str, str]:
    """Variables for each program of a sandbox; a client's own win.

    Java needs none: it reads the limits of its control group by itself, and whatever sets its options makes it print a
    line on every start.
    """
    processors = str(max(math.ceil(limits.cpu_millis / 1000), 1))
    heap_mib = max(int(limits.memory_bytes * NODE_HEAP_SHARE) >> 20, 1)
    return {
        "PYTHON_CPU_COUNT": processors,
        "GOMAXPROCS": processors,
        # OpenBLAS, MKL, NumExpr, PyTorch and `nproc` read it too.
        "OMP_NUM_THREADS": processors,
        "POLARS_MAX_THREADS": processors,
        "RAYON_NUM_THREADS": processors,
        "UV_THREADPOOL_SIZE": str(max(UV_THREADS, int(processors))),
        "NODE_OPTIONS": f"--max-old-space-size={heap_mib}",
    }
