import asyncio

import aiohttp
from aiohttp import web

running = 0
most = 0


async def double(request: web.Request) -> web.Response:
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.01)
    running -= 1
    return web.json_response({"value": int(request.match_info["number"]) * 2})


async def main() -> None:
    app = web.Application()
    app.router.add_get("/double/{number}", double)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 8099)
    await site.start()

    gate = asyncio.Semaphore(5)
    async with aiohttp.ClientSession("http://127.0.0.1:8099") as session:

        async def ask(number: int) -> int:
            async with gate, session.get(f"/double/{number}") as response:
                return (await response.json())["value"]

        values = await asyncio.gather(*(ask(number) for number in range(20)))
    print(f"{len(values)} answers, sum {sum(values)}, at most 5 at once: {most <= 5}")
    await runner.cleanup()


asyncio.run(main())
