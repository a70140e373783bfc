// The official TypeScript SDKs, driven as mcp_driver.py says:
//
//   node mcp_client.mjs 1        @modelcontextprotocol/sdk: Streamable HTTP, and HTTP+SSE of 2024-11-05
//   node mcp_client.mjs 2        @modelcontextprotocol/client

import { AsyncLocalStorage } from "node:async_hooks";
import { createInterface } from "node:readline";

const version = process.argv[2] ?? "2";
const sdk = await (version === "1" ? sdk1() : import("@modelcontextprotocol/client"));

async function sdk1() {
  const parts = ["index", "streamableHttp", "sse"].map((part) => import(`@modelcontextprotocol/sdk/client/${part}.js`));
  return Object.assign({}, ...(await Promise.all(parts)));
}

/** The command that runs: what it awaits, the SDK's requests among it, knows it too. */
const current = new AsyncLocalStorage();
const clients = new Map();
const running = new Map();

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

// The SDKs' own log goes to stderr.
console.log = console.warn = console.info = console.debug = console.error;

/** The driver's own refusals. */
class Refused extends Error {
  constructor(type, message) {
    super(message);
    this.type = type;
  }
}

function described(error) {
  const type = error.type && typeof error.type === "string" ? error.type : error.constructor.name;
  return { type, code: error.code ?? null, message: error.message ?? String(error), data: error.data ?? null };
}

/** One client, from `connect` to `close`. */
class Connection {
  constructor(name, command) {
    this.name = name;
    this.token = command.token;
    this.headers = command.headers ?? {};
    this.deletes = command.delete_on_close ?? true;
    this.timeout = command.timeout_seconds === undefined ? 30 : command.timeout_seconds;
    this.ready = false;
    const { capabilities, handlers } = abilities(command.capabilities ?? []);
    const options = { capabilities };
    if (version !== "1") {
      const mode = command.mode ?? "legacy";
      options.versionNegotiation = { mode: ["legacy", "auto"].includes(mode) ? mode : { pin: mode } };
    }
    this.client = new sdk.Client({ name: "sessiond-test", version: "0", ...command.client_info }, options);
    handlers(this);
    this.client.onerror = (error) => say({ event: "transport_error", client: name, error: described(error) });
    this.client.onclose = () => (this.ready = false);
    this.client.fallbackNotificationHandler = async ({ method, params }) =>
      say({ event: "notification", client: name, method, params: params ?? null });
    const kind = command.transport === "sse" ? sdk.SSEClientTransport : sdk.StreamableHTTPClientTransport;
    this.transport = new kind(new URL(command.url), { fetch: (url, init) => this.fetch(url, init) });
    // Version 1 has no question for what was agreed on.
    const set = this.transport.setProtocolVersion.bind(this.transport);
    this.transport.setProtocolVersion = (agreed) => set((this.protocol = agreed));
  }

  /** Adds the token of the moment to every request, and reports every answer. */
  async fetch(url, init = {}) {
    const headers = new Headers(init.headers);
    for (const [name, value] of Object.entries(this.headers)) headers.set(name, value);
    if (this.token) headers.set("authorization", `Bearer ${this.token}`);
    const method = init.method ?? "GET";
    const command = current.getStore();
    const rpc = (typeof init.body === "string" && JSON.parse(init.body).method) || null;
    const response = await fetch(url, { ...init, headers });
    const challenge = response.headers.get("www-authenticate");
    // A command's own answer is that to its POST, or to the GET that resumes it; not that of the standing stream.
    const opens = command?.op === "connect" && method === "GET" && !headers.has("mcp-session-id");
    if (command && ((rpc && !rpc.startsWith("notifications/")) || opens || headers.has("last-event-id"))) {
      Object.assign(command, { status: response.status, challenge });
    }
    const session = headers.get("mcp-session-id");
    say({ event: "http", client: this.name, for: command?.id ?? null, method, rpc, status: response.status,
      session_id: session, www_authenticate: challenge });
    return response;
  }

  options(command) {
    const seconds = command.timeout_seconds ?? this.timeout;
    // Both SDKs take a number only, and a timer no more than 31 bits.
    const options = { timeout: seconds === null ? 2 ** 31 - 1 : seconds * 1000, signal: command.abort.signal };
    if (command.op === "call") {
      options.onprogress = ({ progress, total, message }) =>
        say({ event: "progress", client: this.name, for: command.id, progress, total, message: message ?? null });
    }
    return options;
  }

  connected() {
    if (!this.ready) throw new Refused("NotConnected", `client '${this.name}' is not connected`);
    return this.client;
  }

  async connect(command) {
    await this.client.connect(this.transport, this.options(command));
    this.ready = true;
    return {
      protocol_version: this.client.getNegotiatedProtocolVersion?.() ?? this.protocol ?? null,
      session_id: this.transport.sessionId ?? null,
      server: this.client.getServerVersion() ?? null,
      capabilities: this.client.getServerCapabilities() ?? {},
      instructions: this.client.getInstructions() ?? null,
    };
  }

  async close() {
    try {
      if (this.deletes) await this.transport.terminateSession?.();
    } finally {
      await this.client.close();
    }
    return {};
  }
}

/** Capabilities by name, answered with fixed values; what to register depends on the SDK's generation. */
function abilities(names) {
  const answers = {
    roots: ["roots/list", { roots: [{ uri: "file:///tmp/root", name: "root" }] }],
    sampling: ["sampling/createMessage",
      { role: "assistant", model: "none", content: { type: "text", text: "sampled" } }],
    elicitation: ["elicitation/create", { action: "decline" }],
  };
  const capabilities = Object.fromEntries(names.map((name) => [name, {}]));
  const handlers = (connection) => {
    const fallback = async ({ method }) => {
      const name = names.find((name) => answers[name][0] === method);
      if (!name) throw new Error(`not offered: ${method}`);
      say({ event: "asked", client: connection.name, what: name });
      return answers[name][1];
    };
    connection.client.fallbackRequestHandler = fallback;
  };
  return { capabilities, handlers };
}

const operations = {
  list_tools: (connection, command) =>
    connection.connected().listTools(undefined, { ...connection.options(command), cacheMode: "bypass" }),
  call(connection, command) {
    const params = { name: command.name, arguments: command.arguments ?? {} };
    if (command.meta) params._meta = command.meta;
    const [client, options] = [connection.connected(), connection.options(command)];
    return version === "1" ? client.callTool(params, undefined, options) : client.callTool(params, options);
  },
  async ping(connection, command) {
    await connection.connected().ping(connection.options(command));
    return {};
  },
  async listen(connection, command) {
    if (version === "1") throw new Refused("BadCommand", "unknown op 'listen'");
    const wanted = { toolsListChanged: true, resourcesListChanged: true };
    const subscription = await connection.connected().listen(wanted, connection.options(command));
    subscription.closed.then((how) => {
      const error = how === "remote" ? { type: "SubscriptionLost", message: how } : null;
      say({ event: "listen_end", client: connection.name, for: command.id, error });
    });
    return { honored: subscription.honoredFilter };
  },
  async set_token(connection, command) {
    connection.token = command.token;
    return {};
  },
  session_id: async (connection) => ({ session_id: connection.transport.sessionId ?? null }),
  close: (connection) => connection.close(),
};

async function run(command) {
  const { op, client: name = "main" } = command;
  if (op === "cancel") {
    const target = running.get(command.target);
    target?.abort.abort("gave up");
    return { cancelled: target !== undefined };
  }
  if (op === "connect") {
    if (clients.get(name)?.ready) throw new Refused("AlreadyConnected", `client '${name}' is connected; close it first`);
    const connection = new Connection(name, command);
    clients.set(name, connection);
    return connection.connect(command);
  }
  if (!Object.hasOwn(operations, op)) throw new Refused("BadCommand", `unknown op '${op}'`);
  const connection = clients.get(name);
  if (!connection) throw new Refused("NotConnected", `client '${name}' was never connected`);
  return operations[op](connection, command);
}

/** Runs one command and says its result, whatever happens. */
async function obey(command) {
  const { id = null, client = "main" } = command;
  Object.assign(command, { abort: new AbortController(), status: null, challenge: null });
  running.set(id, command);
  try {
    const result = await current.run(command, () => run(command));
    say({ id, client, ok: true, result });
  } catch (thrown) {
    const error = thrown instanceof Error ? described(thrown) : { type: "Cancelled", message: String(thrown) };
    if (command.abort.signal.aborted) error.type = "Cancelled";
    error.status = command.status;
    if (command.challenge) error.www_authenticate = command.challenge;
    say({ id, client, ok: false, error });
  }
  if (running.get(id) === command) running.delete(id);
}

async function exit() {
  const open = [...clients.values()].filter((connection) => connection.ready);
  await Promise.allSettled(open.map((connection) => connection.close()));
  process.exit(0);
}

process.on("unhandledRejection", (error) =>
  say({ event: "transport_error", client: "main", error: described(error instanceof Error ? error : new Error(error)) }));

const lines = createInterface({ input: process.stdin });
lines.on("close", exit);
lines.on("line", (line) => {
  if (!line.trim()) return;
  let command;
  try {
    command = JSON.parse(line);
    if (command === null || typeof command !== "object" || Array.isArray(command)) throw new Error("a command is an object");
  } catch (error) {
    const refusal = { type: "BadCommand", code: null, message: error.message, data: null, status: null };
    return say({ id: null, client: "main", ok: false, error: refusal });
  }
  if (command.op === "exit") lines.close();
  else obey(command);
});
