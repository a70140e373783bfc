// The MCP server that the conformance suite is run against, by itself and through the gateway: every fixture its
// scenarios call (`conformance_fixtures.mjs`) and both eras on one endpoint, told apart by the official packages. Older
// revisions have sessions with resumable streams; 2026-07-28 has none.
//
//   PORT=0 node conformance_server.mjs        (0 = any free port)
//
// Prints one line, `ready <port>`, on stdout once it accepts connections at http://127.0.0.1:<port>/mcp; its own log
// goes to stderr. Ends when its standard input closes, so that it cannot outlive the test that started it, and on
// SIGTERM.

import { createServer } from "node:http";

import { localhostHostValidation, localhostOriginValidation, toNodeHandler } from "@modelcontextprotocol/node";
import {
  createMcpHandler,
  isInitializeRequest,
  isLegacyRequest,
  WebStandardStreamableHTTPServerTransport,
} from "@modelcontextprotocol/server";

import { bare, describe } from "./conformance_fixtures.mjs";
import { withTasks } from "./conformance_tasks.mjs";

/** A session's events, for whoever comes back with the id of the last one it saw. */
class Events {
  #all = [];

  async storeEvent(stream, message) {
    const id = `${stream}.${this.#all.length}`;
    this.#all.push({ id, stream, message });
    return id;
  }

  async replayEventsAfter(last, { send }) {
    const at = this.#all.findIndex(({ id }) => id === last);
    if (at < 0) throw new Error(`no event ${last}`);
    const { stream } = this.#all[at];
    for (const { id, message, stream: of } of this.#all.slice(at + 1)) {
      // An event that only opened its stream has no message.
      if (of === stream && "jsonrpc" in message) await send(id, message);
    }
    return stream;
  }
}

const sessions = new Map();

async function withSession(request) {
  const id = request.headers.get("mcp-session-id");
  if (id) {
    const session = sessions.get(id);
    return session ? session.handleRequest(request) : refusal(404, -32001, "Session not found");
  }
  const body = request.method === "POST" ? await request.clone().json().catch(() => null) : null;
  // Anything else is for a transport without a session to refuse.
  const session = new WebStandardStreamableHTTPServerTransport({
    sessionIdGenerator: () => crypto.randomUUID(),
    onsessioninitialized: (id) => void sessions.set(id, session),
    onsessionclosed: (id) => void sessions.delete(id),
    eventStore: new Events(),
    retryInterval: 500,
  });
  if (isInitializeRequest(body)) await describe(bare(), modern.notify).connect(session);
  return session.handleRequest(request);
}

function refusal(status, code, message) {
  return Response.json({ jsonrpc: "2.0", error: { code, message }, id: null }, { status });
}

const onerror = (error) => console.error(error);
const current = () => describe(withTasks(bare()), modern.notify);
const modern = createMcpHandler(current, { legacy: "reject", onerror });
// The suite looks at streams side by side through this one method; everything else streams where it has more to say.
const streaming = createMcpHandler(current, { legacy: "reject", responseMode: "sse", onerror });

async function fetch(request) {
  if (await isLegacyRequest(request)) return withSession(request);
  return (request.headers.get("mcp-method") === "tools/list" ? streaming : modern).fetch(request);
}

const handle = toNodeHandler({ fetch }, { onerror });
const [validHost, validOrigin] = [localhostHostValidation(), localhostOriginValidation()];
const server = createServer((request, response) => {
  // Both answer what they refuse.
  if (validHost(request, response) && validOrigin(request, response)) void handle(request, response);
});
server.listen(Number(process.env.PORT ?? 0), "127.0.0.1", () => {
  process.stdout.write(`ready ${server.address().port}\n`);
});

process.stdin.on("end", () => process.exit(0)).resume();
process.on("SIGTERM", () => process.exit(0));
