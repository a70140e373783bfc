"""What the Python servers beside this file share: they serve an ASGI application as ../mcp_server.py does.

Prints `ready <port>` on stdout once http://127.0.0.1:<port>/mcp accepts connections; logs go to stderr. Ends when the
standard input closes, and on SIGTERM. Tools: `echo {message}`; `wait {seconds, steps}`, which reports progress after each step
where the server can; `given_up`, how many of these were cancelled.
"""

import asyncio
import os
import socket
import sys
import threading

import uvicorn

given_up = 0


async def wait(seconds, steps, report=None):
    global given_up
    try:
        for step in range(1, steps + 1):
            await asyncio.sleep(seconds / steps)
            if report:
                await report(step, steps)
    except asyncio.CancelledError:
        given_up += 1
        raise
    return f"waited {seconds:g} seconds"


def serve(app):
    listener = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=0))

    def until_closed():
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=until_closed, daemon=True).start()

    async def run():
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.01)
        print(f"ready {listener.getsockname()[1]}", flush=True)
        await serving

    asyncio.run(run())
