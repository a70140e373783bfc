// The official TypeScript SDK 1, with sessions, as its examples have it: a transport for each session, found by its id. See common.py.

import { randomUUID } from "node:crypto";
import express from "express";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";
import { announce, given_up, text, wait } from "./common.mjs";

function made() {
  const server = new McpServer({ name: "typescript-v1", version: "0" });
  server.registerTool("echo", { inputSchema: { message: z.string() } }, async ({ message }) => text(`Echo: ${message}`));
  server.registerTool("wait", { inputSchema: { seconds: z.number(), steps: z.number() } }, async (asked, extra) => {
    const progressToken = extra._meta?.progressToken;
    const report = async (progress, total) => {
      if (progressToken === undefined) return;
      await extra.sendNotification({ method: "notifications/progress", params: { progressToken, progress, total } });
    };
    return text(await wait(asked, extra.signal, report));
  });
  server.registerTool("given_up", {}, async () => text(String(given_up)));
  return server;
}

/** Every event of every stream, for ever: a test's server does not live long. */
class Events {
  held = [];
  async storeEvent(stream, message) {
    return String(this.held.push({ stream, message }));
  }
  async getStreamIdForEventId(id) {
    return this.held[Number(id) - 1]?.stream;
  }
  async replayEventsAfter(id, { send }) {
    const from = this.held[Number(id) - 1];
    if (!from) throw new Error("unknown event id");
    for (const [at, { stream, message }] of this.held.entries()) {
      if (at >= Number(id) && stream === from.stream && Object.keys(message).length) await send(String(at + 1), message);
    }
    return from.stream;
  }
}

const app = express();
app.use(express.json());
const transports = {};

app.all("/mcp", async (request, response) => {
  const id = request.headers["mcp-session-id"];
  let transport = transports[id];
  if (!transport && !id && isInitializeRequest(request.body)) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new Events(),
      onsessioninitialized: (id) => (transports[id] = transport),
    });
    transport.onclose = () => delete transports[transport.sessionId];
    await made().connect(transport);
  }
  if (!transport) {
    const error = { code: -32000, message: "Bad Request: No valid session ID provided" };
    return response.status(400).json({ jsonrpc: "2.0", error, id: null });
  }
  await transport.handleRequest(request, response, request.body);
});

const listener = app.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => announce(listener));
