import asyncio
import concurrent.futures
import multiprocessing
from multiprocessing import shared_memory


def double(x: int) -> int:
    return 2 * x


async def child() -> int:
    process = await asyncio.create_subprocess_exec("true")
    return await process.wait()


if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(double, range(4)) == [0, 2, 4, 6]
    with concurrent.futures.ThreadPoolExecutor() as threads:
        assert sum(threads.map(double, range(100))) == 9900
    assert asyncio.run(child()) == 0
    block = shared_memory.SharedMemory(create=True, size=100 << 20)
    assert block.buf is not None
    block.buf[-1] = 1
    block.close()
    block.unlink()
    with multiprocessing.Manager() as manager:
        print("fine", *manager.list([1]))
