"""The official Python MCP SDK 2 (`.venv`), driven as mcp_driver.py says."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

import mcp_driver
from mcp_driver import implementation, described, plain, say

Transport = mcp_driver.transport(httpx2)


class Connection(mcp_driver.Connection):
    @asynccontextmanager
    async def opened(self, command):
        http = httpx2.AsyncClient(
            transport=Transport(self), headers=command.get("headers") or {}, timeout=httpx2.Timeout(30.0, read=None))
        async with http, Client(
            streamable_http_client(
                command["url"], http_client=http, terminate_on_close=command.get("delete_on_close", True)),
            mode=command.get("mode", "legacy"),
            client_info=types.Implementation(**implementation(command)),
            read_timeout_seconds=command.get("timeout_seconds", 30),
            message_handler=self.hear,
            **self.abilities(types, command.get("capabilities") or []),
        ) as client:
            yield client

    def greeting(self):
        client = self.connected()
        return {
            "protocol_version": client.protocol_version,
            "server": client.server_info and plain(client.server_info),
            "capabilities": plain(client.server_capabilities),
            "instructions": client.instructions,
        }

    async def list_tools(self, command):
        return plain(await self.connected().list_tools(cache_mode="bypass"))

    async def call(self, command):
        return plain(await self.connected().call_tool(
            command["name"], command.get("arguments") or {}, meta=command.get("meta"),
            read_timeout_seconds=command.get("timeout_seconds"), progress_callback=self.progress(command)))

    async def listen(self, command):
        """Answers once the server acknowledged the stream; then the stream lives on beside the other commands."""
        opened = asyncio.get_running_loop().create_future()

        async def follow():
            error = None
            try:
                async with self.connected().listen(tools_list_changed=True, resources_list_changed=True) as stream:
                    opened.set_result({"honored": plain(stream.honored)})
                    async for event in stream:
                        say({"event": "listen_event", "client": self.name, "for": command.get("id"),
                             "kind": type(event).__name__})
            except Exception as raised:
                error = raised
            if not opened.done():
                opened.set_exception(error)
            else:
                say({"event": "listen_end", "client": self.name, "for": command.get("id"),
                     "error": error and described(error)})

        self.following = asyncio.create_task(follow())  # held, so that it is not collected
        return await opened


if __name__ == "__main__":
    mcp_driver.run(Connection)
