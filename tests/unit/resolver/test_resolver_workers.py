from __future__ import annotations

import pytest

from services.resolver.calls import MakeLock, MakePlan
from services.resolver.errors import ManifestError
from services.resolver.model import Context, Target
from services.resolver.workers import WorkerCrashedError, WorkerLimits, WorkerPool, WorkerTimeoutError

CONTEXT = Context(toolchain={"python": "3.13.5"}, registry_urls={})
GOOD = MakePlan(files={"main.py": b"import requests\n"}, tree=("main.py",), target=Target(), context=CONTEXT)

# Valid, flat, and many seconds of parsing: only the limits end it.
LONG_LIST = b"x = [" + b"1," * 5_000_000 + b"]"


def with_manifest(content: bytes) -> MakePlan:
    files = {"main.py": b"", "pyproject.toml": content}
    return MakePlan(files=files, tree=tuple(files), target=Target(), context=CONTEXT)


async def run_then_run_a_good_one(limits: WorkerLimits, bomb: MakePlan | MakeLock, error: type[Exception]) -> Exception:
    pool = WorkerPool(1, limits)
    await pool.start()
    try:
        with pytest.raises(error) as caught:
            await pool.run(bomb)
        assert (await pool.run(GOOD)).requirements[0].specifier == "requests"
        return caught.value
    finally:
        await pool.stop()


async def test_answer_is_the_same_as_in_process() -> None:
    pool = WorkerPool(1, WorkerLimits())
    await pool.start()
    try:
        assert await pool.run(GOOD) == GOOD.run()
    finally:
        await pool.stop()


async def test_deep_toml_is_an_error_of_the_manifest() -> None:
    bomb = with_manifest(b"x = " + b"[" * 10_000)
    await run_then_run_a_good_one(WorkerLimits(), bomb, ManifestError)


async def test_deadline_kills_the_worker_and_the_next_call_gets_another() -> None:
    bomb = with_manifest(LONG_LIST)
    await run_then_run_a_good_one(WorkerLimits(deadline_seconds=0.5), bomb, WorkerTimeoutError)


async def test_processor_time_is_limited() -> None:
    bomb = with_manifest(LONG_LIST)
    error = await run_then_run_a_good_one(WorkerLimits(cpu_seconds=1), bomb, WorkerCrashedError)
    assert isinstance(error, WorkerCrashedError)
    assert error.resource == "cpu"


async def test_memory_is_limited() -> None:
    # Eight million objects take far more than their text.
    inventory = b'{"packages": [' + b"{}," * 8_000_000 + b"{}]}"
    bomb = MakeLock(
        ecosystem="python",
        direct=(),
        native_lock=b"",
        inventory=inventory,
        toolchain={"python": "3.13.5"},
        registry_urls={},
    )
    error = await run_then_run_a_good_one(WorkerLimits(memory_bytes=400 << 20), bomb, WorkerCrashedError)
    assert isinstance(error, WorkerCrashedError)
    assert error.resource == "memory"
