"""The official Python MCP SDK 1 (`.venv-v1`), driven as mcp_driver.py says: Streamable HTTP, and HTTP+SSE of 2024-11-05."""

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import mcp.types as types
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

import mcp_driver
from mcp_driver import current, implementation, plain

Transport = mcp_driver.transport(httpx)


class Noted:
    """The way out to the transport. This SDK sends from a task of its own, so what each command sends is noted here."""

    def __init__(self, stream, asked):
        self.stream, self.asked = stream, asked

    async def send(self, item):
        if isinstance(item.message.root, types.JSONRPCRequest):
            self.asked[item.message.root.id] = current.get()
        await self.stream.send(item)

    async def aclose(self):
        await self.stream.aclose()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.aclose()


class Connection(mcp_driver.Connection):
    @asynccontextmanager
    async def opened(self, command):
        self.asked = {}
        timeout = command.get("timeout_seconds", 30)
        async with self.transport(command) as (read, write), ClientSession(
            read, Noted(write, self.asked),
            read_timeout_seconds=timeout and timedelta(seconds=timeout),
            client_info=types.Implementation(**implementation(command)),
            message_handler=self.hear,
            **self.abilities(types, command.get("capabilities") or []),
        ) as client:
            self.welcome = await client.initialize()
            yield client

    @asynccontextmanager
    async def transport(self, command):
        def http(headers=None, timeout=None, auth=None):
            return httpx.AsyncClient(
                transport=Transport(self), headers=command.get("headers") or {},
                timeout=httpx.Timeout(30.0, read=None))

        if command.get("transport") == "sse":
            def named(id):
                self.session_id = id
            async with sse_client(
                command["url"], httpx_client_factory=http, on_session_created=named) as (read, write):
                yield read, write
        else:
            async with http() as client, streamable_http_client(
                command["url"], http_client=client,
                terminate_on_close=command.get("delete_on_close", True)) as (read, write, _):
                yield read, write

    def command_of(self, message):
        return self.asked.get(message["id"]) if "id" in message else current.get()

    def greeting(self):
        return {
            "protocol_version": self.welcome.protocolVersion,
            "server": plain(self.welcome.serverInfo),
            "capabilities": plain(self.welcome.capabilities),
            "instructions": self.welcome.instructions,
        }

    async def list_tools(self, command):
        return plain(await self.connected().list_tools())

    async def call(self, command):
        timeout = command.get("timeout_seconds")
        try:
            return plain(await self.connected().call_tool(
                command["name"], command.get("arguments") or {}, timeout and timedelta(seconds=timeout),
                self.progress(command), meta=command.get("meta")))
        except asyncio.CancelledError:
            await self.tell_cancelled(command)
            raise

    async def tell_cancelled(self, command):
        """This SDK tells the server nothing when its caller gives up; a caller who wants to be polite does it by hand."""
        for id, asked in self.asked.items():
            if asked["id"] == command.get("id") and self.client is not None:
                await self.client.send_notification(types.ClientNotification(types.CancelledNotification(
                    params=types.CancelledNotificationParams(requestId=id, reason="gave up"))))


if __name__ == "__main__":
    mcp_driver.run(Connection)
