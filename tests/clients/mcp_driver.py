"""An official MCP SDK, driven line by line, so that a test in any language can live a client's whole life.

This is the protocol of all drivers, and what those in Python share: mcp_client.py (Python SDK 2), mcp_client_v1.py
(Python SDK 1), mcp_client.mjs (both TypeScript SDKs), and in tests/it/mcp/rust_client.rs rmcp's.

One JSON command per line on stdin; one JSON line on stdout per result, and per event. Every command may carry an
`id`, which its result repeats, and a `client` (default "main"), so that one process can hold several clients.
Commands run concurrently; results come in the order in which they are ready.

    {"op":"connect","url":U}      -> {"protocol_version","session_id","server","capabilities","instructions"}
        "token":T                    sent as `Authorization: Bearer T`
        "headers":{...}              sent with every request
        "transport":"sse"            HTTP+SSE of 2024-11-05, where U is the address of its stream (SDKs of version 1);
                                     otherwise Streamable HTTP
        "mode":"legacy"              the `initialize` handshake (default); "auto" asks `server/discover` first;
                                     "2026-07-28" speaks that revision without asking (not SDKs of version 1)
        "client_info":{"name":N,"version":V,"title":...}
        "capabilities":["roots","sampling","elicitation"]   offered to the server and answered with fixed values
        "timeout_seconds":S          how long one request may take (default 30; null: for ever)
        "delete_on_close":true       whether `close` sends DELETE for its session
    {"op":"list_tools"}           -> {"tools":[...]}             always asks the server, never a cache
    {"op":"call","name":N,"arguments":{...},"meta":{...},"timeout_seconds":S} -> {"content":[...],"isError":...}
    {"op":"cancel","target":ID}   -> {"cancelled":bool}          gives up the running command ID, as a user would
    {"op":"ping"}                 -> {}                          legacy only
    {"op":"listen"}               -> {"honored":{...}}           2026-07-28 only: opens `subscriptions/listen`
    {"op":"set_token","token":T}  -> {}                          used by every later request; null: none
    {"op":"session_id"}           -> {"session_id":S}            the last one received; null if none
    {"op":"close"}                -> {}                          a polite goodbye
    {"op":"exit"}                 closes every client and ends the process, as does the end of stdin

A result is {"id","client","ok":true,"result":{...}} or {"id","client","ok":false,"error":{...}} with
    type      the SDK's exception, or NotConnected, AlreadyConnected, Cancelled, BadCommand
    code, message, data      of the JSON-RPC error; message alone for other errors
    status    the HTTP status last seen for this command's own message; null if no answer came
    www_authenticate         of that answer, if it had one

Events have no `id` of their own, but `for`: the id of the command on whose behalf it happened, or null.
    {"event":"http","client","for","method","rpc","status","session_id","www_authenticate"}   each HTTP answer's head;
                                     `rpc` is the JSON-RPC method posted, `session_id` the one the request carried
    {"event":"stream_end","client","for","method","rpc","how"}    an event stream ended: "eof" by the server,
                                     "closed" by this client, "error" by a broken connection (then with "message");
                                     from the drivers in Python
    {"event":"progress","client","for","progress","total","message"}
    {"event":"notification","client","method","params"}    anything else the server said of its own accord
    {"event":"listen_event","client","for","kind"} and {"event":"listen_end","client","for","error"}
    {"event":"asked","client","what"}       the server asked for roots, sampling or elicitation, and was answered
    {"event":"transport_error","client","error"}    the SDK reported a transport failure that belongs to no command
    {"event":"lost","client","error"}       the whole client broke down; `connect` works again

The SDK's own log goes to stderr; MCP_CLIENT_LOG=DEBUG makes those in Python talk. By hand, in this directory:

    .venv/bin/python mcp_client.py
    .venv-v1/bin/python mcp_client_v1.py
    node mcp_client.mjs 2
    {"id":1,"op":"connect","url":"http://127.0.0.1:8080/mcp/…","token":"sat_…"}
    {"id":2,"op":"list_tools"}
"""
import asyncio
import json
import logging
import os
import sys
import warnings
from contextvars import ContextVar

# The command that runs. Most SDKs send each message in its sender's context, so that this reaches the transport.
current: ContextVar[dict | None] = ContextVar("current", default=None)

def say(line: dict) -> None:
    sys.stdout.write(json.dumps(line, default=str) + "\n")
    sys.stdout.flush()


def plain(model) -> dict:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def cause(error: BaseException) -> BaseException:
    """The first real error inside the groups that task groups wrap around it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def described(error: BaseException) -> dict:
    error = cause(error)
    told = getattr(error, "error", error)  # SDK 1 keeps the JSON-RPC error apart
    return {
        "type": type(error).__name__,
        "code": getattr(told, "code", None),
        "message": str(error),
        "data": getattr(told, "data", None),
    }


class Refused(Exception):
    """The driver's own refusals; `type` is what the result will name."""

    def __init__(self, type_: str, message: str):
        super().__init__(message)
        self.type = type_


def transport(httpx):
    """The HTTP transport of this SDK's own HTTP library: adds the token of the moment, reports answers and streams' ends."""

    class Watched(httpx.AsyncByteStream):
        """A response body that says how it ended."""

        def __init__(self, stream, ended):
            self.stream, self.ended = stream, ended

        async def __aiter__(self):
            try:
                async for chunk in self.stream:
                    yield chunk
            except httpx.TransportError as error:
                self.end("error", str(error))
                raise
            self.end("eof")

        async def aclose(self):
            self.end("closed")
            await self.stream.aclose()

        def end(self, how, message=None):
            ended, self.ended = self.ended, None
            if ended:
                ended(how, message)

    class Transport(httpx.AsyncHTTPTransport):
        def __init__(self, connection):
            super().__init__()
            self.connection = connection

        async def handle_async_request(self, request):
            connection, message = self.connection, posted(request, httpx)
            command = connection.command_of(message)
            if connection.token is not None:
                request.headers["authorization"] = f"Bearer {connection.token}"
            rpc = message.get("method")  # none for an answer to the server's own request
            about = {"client": connection.name, "for": command and command["id"], "method": request.method, "rpc": rpc}

            response = await super().handle_async_request(request)

            challenge = response.headers.get("www-authenticate")
            # A command's own answer is that to its POST, or to the GET that resumes it; not that of the standing stream.
            if command and (is_request(rpc) or opens(command, request) or "last-event-id" in request.headers):
                command["status"], command["challenge"] = response.status_code, challenge
            if rpc == "initialize" and response.is_success:
                connection.session_id = response.headers.get("mcp-session-id")
            say({"event": "http", **about, "status": response.status_code,
                 "session_id": request.headers.get("mcp-session-id"), "www_authenticate": challenge})
            if response.headers.get("content-type", "").startswith("text/event-stream"):
                response.stream = Watched(response.stream, lambda how, message: say(
                    {"event": "stream_end", **about, "how": how, **({"message": message} if message else {})}))
            return response

    return Transport


def posted(request, httpx) -> dict:
    """The one message that a request carries."""
    try:
        message = json.loads(request.content) if request.method == "POST" else {}
    except (ValueError, httpx.RequestNotRead):
        return {}
    return message if isinstance(message, dict) else {}


def is_request(rpc: str | None) -> bool:
    return rpc is not None and not rpc.startswith("notifications/")


def opens(command: dict, request) -> bool:
    """Whether this is the stream that an HTTP+SSE client begins with."""
    return command["op"] == "connect" and request.method == "GET" and "mcp-session-id" not in request.headers


class Connection:
    """One client, from `connect` to `close`. Each SDK's driver says how it is opened and what it does."""

    def __init__(self, name: str, command: dict):
        self.name = name
        self.token = command.get("token")
        self.session_id = None
        self.client = None
        self.lost = None  # what it broke down with
        self.closing = asyncio.Event()
        self.ready = asyncio.get_running_loop().create_future()
        # The SDK's client must be left by the task that entered it, so that task does nothing else.
        self.life = asyncio.create_task(self.live(command))

    def opened(self, command: dict):
        """The SDK's client, ready for use, as a context."""
        raise NotImplementedError

    def command_of(self, message: dict) -> dict | None:
        """The command that sends this message."""
        return current.get()

    async def live(self, command: dict) -> None:
        error = None
        try:
            async with self.opened(command) as self.client:
                self.ready.set_result(None)
                await self.closing.wait()
                self.client = None
        except asyncio.CancelledError:
            error = Refused("Cancelled", "gave up connecting")
        except BaseException as raised:  # whatever the SDK throws must become a line, never the end of the driver
            error = raised
        self.client, self.lost = None, error
        if not self.ready.done():
            self.ready.set_exception(error)
        elif error and not self.closing.is_set():
            say({"event": "lost", "client": self.name, "error": described(error)})

    async def within(self, work) -> dict:
        """Does this as if within the client's own context, which ends what happens in it when it breaks down."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, self.life}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and self.lost and not self.closing.is_set():
                raise self.lost
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.wait({task})

    def connected(self):
        if self.client is None:
            raise Refused("NotConnected", f"client {self.name!r} is not connected")
        return self.client

    async def close(self, command: dict | None = None) -> dict:
        self.closing.set()
        await self.life
        return {}

    async def hear(self, message) -> None:
        """What the server said of its own accord."""
        message = getattr(message, "root", message)
        if isinstance(message, Exception):
            say({"event": "transport_error", "client": self.name, "error": described(message)})
        elif getattr(message, "method", "notifications/progress") != "notifications/progress":  # that is its command's
            line = plain(message)
            say({"event": "notification", "client": self.name, "method": line["method"], "params": line.get("params")})

    def progress(self, command: dict):
        async def progress(done, total, message):
            say({"event": "progress", "client": self.name, "for": command.get("id"),
                 "progress": done, "total": total, "message": message})
        return progress

    def abilities(self, types, names: list) -> dict:
        """The SDK announces exactly the capabilities that have a callback."""

        def answering(what, answer):
            async def answered(*_):
                say({"event": "asked", "client": self.name, "what": what})
                return answer
            return answered

        known = {
            "roots": ("list_roots_callback", types.ListRootsResult(
                roots=[types.Root(uri="file:///tmp/root", name="root")])),
            "sampling": ("sampling_callback", types.CreateMessageResult(
                role="assistant", model="none", content=types.TextContent(type="text", text="sampled"))),
            "elicitation": ("elicitation_callback", types.ElicitResult(action="decline")),
        }
        return {known[name][0]: answering(name, known[name][1]) for name in names}

    async def ping(self, command: dict) -> dict:
        await self.connected().send_ping()
        return {}

    async def set_token(self, command: dict) -> dict:
        self.token = command["token"]
        return {}

    async def tell_session_id(self, command: dict) -> dict:
        return {"session_id": self.session_id}


def implementation(command: dict) -> dict:
    return {"name": "sessiond-test", "version": "0", **(command.get("client_info") or {})}


OPERATIONS = {name: name for name in ("list_tools", "call", "ping", "listen", "set_token", "close")}
OPERATIONS["session_id"] = "tell_session_id"

connections: dict[str, Connection] = {}
running: dict[object, asyncio.Task] = {}


async def connect(kind: type[Connection], name: str, command: dict) -> dict:
    if (old := connections.get(name)) and not old.life.done():
        raise Refused("AlreadyConnected", f"client {name!r} is connected; close it first")
    connection = connections[name] = kind(name, command)
    try:
        await asyncio.shield(connection.ready)
    except asyncio.CancelledError:
        connection.life.cancel()
        raise
    return {**connection.greeting(), "session_id": connection.session_id}


def cancel(command: dict) -> dict:
    return {"cancelled": (task := running.get(command["target"])) is not None and task.cancel()}


async def obey(kind: type[Connection], command: dict) -> None:
    """Runs one command and says its result, whatever happens."""
    name, op, id = command.get("client", "main"), command.get("op"), command.get("id")
    about = {"id": id, "op": op, "status": None, "challenge": None}
    current.set(about)
    try:
        if op == "connect":
            result = await connect(kind, name, command)
        elif op == "cancel":
            result = cancel(command)
        elif op not in OPERATIONS or not hasattr(kind, OPERATIONS[op]):
            raise Refused("BadCommand", f"unknown op {op!r}")
        elif name not in connections:
            raise Refused("NotConnected", f"client {name!r} was never connected")
        else:
            connection = connections[name]
            work = getattr(connection, OPERATIONS[op])(command)
            result = await (work if op == "close" else connection.within(work))
        say({"id": id, "client": name, "ok": True, "result": result})
    except asyncio.CancelledError:
        failed(about, name, {"type": "Cancelled", "code": None, "message": "cancelled", "data": None})
    except Refused as error:
        failed(about, name, {"type": error.type, "code": None, "message": str(error), "data": None})
    except (KeyError, TypeError, ValueError) as error:
        failed(about, name, {**described(error), "type": "BadCommand", "message": f"{type(error).__name__}: {error}"})
    except BaseException as error:
        failed(about, name, described(error))


def failed(about: dict, name: str, error: dict) -> None:
    error["status"] = about["status"]
    if about["challenge"]:
        error["www_authenticate"] = about["challenge"]
    say({"id": about["id"], "client": name, "ok": False, "error": error})


async def main(kind: type[Connection]) -> None:
    tasks = set()
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        if not line.strip():
            continue
        try:
            command = json.loads(line)
            if not isinstance(command, dict):
                raise ValueError("a command is an object")
        except ValueError as error:
            failed({"id": None, "status": None, "challenge": None}, "main",
                   {"type": "BadCommand", "code": None, "message": str(error), "data": None})
            continue
        if command.get("op") == "exit":
            break
        task = asyncio.create_task(obey(kind, command))
        tasks.add(task)
        running[command.get("id")] = task
        task.add_done_callback(lambda task, id=command.get("id"): (
            tasks.discard(task), running.get(id) is task and running.pop(id)))
    await asyncio.gather(*(connection.close() for connection in connections.values()), return_exceptions=True)


def run(kind: type[Connection]) -> None:
    warnings.simplefilter("ignore")  # the SDKs warn of each method that the newest revision removed
    logging.basicConfig(level=os.environ.get("MCP_CLIENT_LOG", "ERROR"), stream=sys.stderr)
    asyncio.run(main(kind))
