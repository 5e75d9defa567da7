"""A web service whose CPU work is done by other processes, and no request is lost when one of them is killed.

    python examples/web_service.py 8080
    curl http://localhost:8080/factors/99999999999999

aiohttp's loop only waits; the numbers go through `loop.run_in_executor`, as in any program with asyncio, to the workers of
an `upcall.Executor`. Factoring a number twice does no harm, so `on_death="retry"`: a task whose worker dies goes to another
one, and its client waits a little longer. The other tasks go on whatever dies.
"""

import asyncio
import sys

from aiohttp import web

import upcall

POOL = web.AppKey("POOL", upcall.Executor)


def factors(n: int) -> list[int]:
    """The primes whose product is n; some of 14 digits take a second."""
    found = []
    divisor = 2
    while divisor * divisor <= n:
        while n % divisor == 0:
            found.append(divisor)
            n //= divisor
        divisor += 1 + divisor % 2
    return found + [n] * (n > 1)


async def answer(request: web.Request) -> web.Response:
    n = int(request.match_info["n"])
    found = await asyncio.get_running_loop().run_in_executor(request.app[POOL], factors, n)
    return web.json_response({"n": n, "factors": found})


if __name__ == "__main__":
    with upcall.Executor(on_death="retry") as pool:
        # The first task starts the workers: before there are connections, which forked workers would keep open.
        pool.submit(factors, 1).result()
        app = web.Application()
        app[POOL] = pool
        app.router.add_get(r"/factors/{n:[1-9]\d{0,13}}", answer)
        web.run_app(app, host="localhost", port=int(sys.argv[1]))
