// What the MCP conformance suite expects to find on a server: tools, resources, prompts and completions under the names
// its scenarios call. `describe` puts all of it on a server, of either era; tasks are in `conformance_tasks.mjs`.

import { setTimeout as pause } from "node:timers/promises";

import {
  acceptedContent,
  CLIENT_CAPABILITIES_META_KEY,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
  McpServer,
  ResourceTemplate,
} from "@modelcontextprotocol/server";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg==";
const WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQIAAAAAAA==";

const text = (text) => ({ type: "text", text });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const embedded = (uri, mimeType, text) => ({ type: "resource", resource: { uri, mimeType, text } });
const said = (...content) => ({ content });

const object = (properties = {}, required = Object.keys(properties)) => ({ type: "object", properties, required });
const string = { type: "string" };

// In the current revision every request meets a server made for it, so what a call must remember between its rounds
// travels through the client, signed.
const state = createRequestStateCodec({ key: crypto.getRandomValues(new Uint8Array(32)) });

const name = () => inputRequired.elicit({ message: "What is your name?", requestedSchema: object({ name: string }) });
const confirmation = () =>
  inputRequired.elicit({ message: "Go on?", requestedSchema: object({ ok: { type: "boolean" } }) });
const completion = (question, maxTokens) =>
  inputRequired.createMessage({ messages: [{ role: "user", content: text(question) }], maxTokens });

/** Tools that any revision may call. [name, description, input schema, handler]. */
const tools = (notify) => [
  [
    "test_simple_text",
    "Answers with text",
    object(),
    () => said(text("This is a simple text response for testing.")),
  ],
  ["test_image_content", "Answers with an image", object(), () => said(image)],
  [
    "test_audio_content",
    "Answers with sound",
    object(),
    () => said({ type: "audio", data: WAV, mimeType: "audio/wav" }),
  ],
  [
    "test_embedded_resource",
    "Answers with a resource",
    object(),
    () => said(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")),
  ],
  [
    "test_multiple_content_types",
    "Answers with text, an image and a resource",
    object(),
    () => said(text("Several kinds:"), image, embedded("test://mixed", "application/json", '{"mixed":true}')),
  ],
  ["test_tool_with_logging", "Logs three lines while it works", object(), logging],
  ["test_tool_with_progress", "Reports its progress in three steps", object(), progress],
  [
    "test_error_handling",
    "Always fails",
    object(),
    () => {
      throw new Error("This tool intentionally returns an error for testing");
    },
  ],
  ["test_reconnection", "Closes its stream before it answers", object(), reconnection],
  [
    "test_x_mcp_header",
    "Takes an argument that clients repeat in a header",
    mirrored,
    ({ region }) => said(text(`${region}`)),
  ],
  [
    "json_schema_2020_12_tool",
    "Has an input schema full of rare keywords",
    rare,
    (args) => said(text(JSON.stringify(args))),
  ],
  [
    "test_trigger_tool_change",
    "Tells subscribers that the tools changed",
    object(),
    () => (notify.toolsChanged(), said(text("told"))),
  ],
  [
    "test_trigger_prompt_change",
    "Tells subscribers that the prompts changed",
    object(),
    () => (notify.promptsChanged(), said(text("told"))),
  ],
];

async function logging(_args, { mcpReq }) {
  await mcpReq.log("info", "Tool execution started");
  await pause(50);
  await mcpReq.log("info", "Tool processing data");
  await pause(50);
  await mcpReq.log("info", "Tool execution completed");
  return said(text("logged"));
}

async function progress(_args, { mcpReq }) {
  const progressToken = mcpReq._meta?.progressToken;
  if (progressToken === undefined) return said(text("nobody asked for progress"));
  for (const progress of [0, 50, 100]) {
    const params = { progressToken, progress, total: 100, message: `Completed ${progress} of 100` };
    await mcpReq.notify({ method: "notifications/progress", params });
    await pause(50);
  }
  return said(text(`${progressToken}`));
}

async function reconnection(_args, { http }) {
  http?.closeSSE?.();
  await pause(100);
  return said(text("The client came back for this."));
}

const mirrored = object({ region: { ...string, "x-mcp-header": "Region" }, level: { type: "integer" } }, []);

const rare = {
  $schema: "https://json-schema.org/draft/2020-12/schema",
  type: "object",
  $defs: {
    address: { $anchor: "addressDef", type: "object", properties: { street: string, city: string } },
  },
  properties: {
    name: string,
    address: { $ref: "#/$defs/address" },
    contactMethod: { type: "string", enum: ["phone", "email"] },
    phone: string,
    email: string,
  },
  allOf: [{ anyOf: [{ required: ["phone"] }, { required: ["email"] }] }],
  if: { properties: { contactMethod: { const: "phone" } }, required: ["contactMethod"] },
  then: { required: ["phone"] },
  else: { required: ["email"] },
  additionalProperties: false,
};

/**
 * Tools that ask the client by a request of their own, as the revisions with sessions do. They ask on the stream of the
 * call: left to itself the package asks on the one that the client opens beside it, and if that comes a moment later,
 * nobody hears the question.
 */
const asking = [
  [
    "test_sampling",
    "Asks the client's model",
    object({ prompt: string }),
    async ({ prompt }, { mcpReq }) => {
      const messages = [{ role: "user", content: text(prompt) }];
      const { content } = await mcpReq.requestSampling({ messages, maxTokens: 100 }, onStreamOf(mcpReq));
      return said(text(`LLM response: ${content.text}`));
    },
  ],
  [
    "test_elicitation",
    "Asks the user for a line",
    object({ message: string }),
    ({ message }, context) => elicit(context, message, object({ response: string })),
  ],
  [
    "test_elicitation_sep1034_defaults",
    "Asks the user with defaults of every kind",
    object(),
    (_args, context) => elicit(context, "Are these right?", defaults),
  ],
  [
    "test_elicitation_sep1330_enums",
    "Asks the user to choose, in every way there is",
    object(),
    (_args, context) => elicit(context, "Please choose", choices),
  ],
];

const onStreamOf = ({ id }) => ({ relatedRequestId: id });

async function elicit({ mcpReq }, message, requestedSchema) {
  const { action, content } = await mcpReq.elicitInput({ message, requestedSchema }, onStreamOf(mcpReq));
  return said(text(`User response: action=${action}, content=${JSON.stringify(content ?? {})}`));
}

const defaults = object(
  {
    name: { ...string, default: "John Doe" },
    age: { type: "integer", default: 30 },
    score: { type: "number", default: 95.5 },
    status: { ...string, enum: ["active", "inactive", "pending"], default: "active" },
    verified: { type: "boolean", default: true },
  },
  [],
);

const titled = ["First", "Second", "Third"].map((title, n) => ({ const: `value${n + 1}`, title }));
const choices = object(
  {
    untitledSingle: { ...string, enum: ["option1", "option2", "option3"] },
    titledSingle: { ...string, oneOf: titled },
    legacyEnum: { ...string, enum: ["opt1", "opt2", "opt3"], enumNames: ["One", "Two", "Three"] },
    untitledMulti: { type: "array", items: { ...string, enum: ["option1", "option2", "option3"] } },
    titledMulti: { type: "array", items: { anyOf: titled } },
  },
  [],
);

/** Tools that ask by an unfinished result, as the current revision does. */
const unfinished = [
  [
    "test_missing_capability",
    "Needs a client with sampling",
    ({ inputResponses }) =>
      inputResponses?.answer
        ? said(text("sampled"))
        : inputRequired({ inputRequests: { answer: completion("Say pong.", 16) } }),
  ],
  ["test_streaming_elicitation", "Sends nothing but its answer", () => said(text("no requests on this stream"))],
  [
    "test_logging_tool",
    "Logs, if its caller asked for logs",
    async (request) => {
      await request.log("info", "You asked for logs.");
      return said(text("done"));
    },
  ],
  ["test_input_required_result_elicitation", "Asks for a name", greet],
  [
    "test_input_required_result_sampling",
    "Asks the client's model",
    ({ inputResponses }) => {
      const answer = inputResponses?.capital?.content?.text;
      return answer
        ? said(text(`Sampled: ${answer}`))
        : inputRequired({ inputRequests: { capital: completion("What is the capital of France?", 100) } });
    },
  ],
  [
    "test_input_required_result_list_roots",
    "Asks for the client's roots",
    ({ inputResponses }) => {
      const roots = inputResponses?.roots?.roots;
      return roots
        ? said(text(`Roots: ${roots.map((root) => root.uri).join(" ")}`))
        : inputRequired({ inputRequests: { roots: inputRequired.listRoots() } });
    },
  ],
  ["test_input_required_result_request_state", "Asks, with a state", confirm("state-ok")],
  ["test_input_required_result_tampered_state", "Asks, and refuses a forged state", confirm("integrity-ok")],
  ["test_input_required_result_multiple_inputs", "Asks for three things at once", several],
  ["test_input_required_result_multi_round", "Asks twice", rounds],
  ["test_input_required_result_capabilities", "Asks for what the client declared", capable],
];

function greet({ inputResponses }) {
  const answer = acceptedContent(inputResponses, "user_name")?.name;
  if (typeof answer === "string") return said(text(`Hello, ${answer}!`));
  return inputRequired({ inputRequests: { user_name: name() } });
}

function confirm(verdict) {
  return async ({ inputResponses, requestState }) => {
    const confirmed = acceptedContent(inputResponses, "confirm") && requestState()?.asked === verdict;
    if (confirmed) return said(text(`${verdict}: the state came back whole`));
    const requestStateMinted = await state.mint({ asked: verdict });
    return inputRequired({ inputRequests: { confirm: confirmation() }, requestState: requestStateMinted });
  };
}

async function several({ inputResponses }) {
  const user = acceptedContent(inputResponses, "user_name")?.name;
  const greeting = inputResponses?.greeting?.content?.text;
  const roots = inputResponses?.roots?.roots;
  if (user && greeting && roots) return said(text(`${greeting} ${user}, of ${roots.length} root(s)`));
  return inputRequired({
    inputRequests: { user_name: name(), greeting: completion("Greet somebody.", 50), roots: inputRequired.listRoots() },
    requestState: await state.mint({ asked: "several" }),
  });
}

async function rounds({ inputResponses, requestState }) {
  const before = requestState();
  const user = before?.name ?? acceptedContent(inputResponses, "step1")?.name;
  if (before?.round === 2) {
    return said(text(`${user} likes ${acceptedContent(inputResponses, "step2")?.color}`));
  }
  if (before?.round === 1) {
    const color = { message: "Your favourite colour?", requestedSchema: object({ color: string }) };
    const requestState = await state.mint({ round: 2, name: user });
    return inputRequired({ inputRequests: { step2: inputRequired.elicit(color) }, requestState });
  }
  return inputRequired({ inputRequests: { step1: name() }, requestState: await state.mint({ round: 1 }) });
}

function capable({ inputResponses, envelope }) {
  if (inputResponses) return said(text("all answered"));
  const declared = envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};
  const inputRequests = {};
  if (declared.elicitation) inputRequests.user_name = name();
  if (declared.sampling) inputRequests.greeting = completion("Greet somebody.", 50);
  if (declared.roots) inputRequests.roots = inputRequired.listRoots();
  return Object.keys(inputRequests).length ? inputRequired({ inputRequests }) : said(text("nothing to ask with"));
}

function addResources(server) {
  const fixed = (id, mimeType, content) => {
    const uri = `test://${id}`;
    const read = () => ({ contents: [{ uri, mimeType, ...content }] });
    server.registerResource(id, uri, { description: `The ${id} fixture`, mimeType }, read);
  };
  fixed("static-text", "text/plain", { text: "This is the content of the static text resource." });
  fixed("static-binary", "image/png", { blob: PNG });
  fixed("watched-resource", "text/plain", { text: "Watched." });
  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  server.registerResource("template", template, { mimeType: "application/json" }, (uri, { id }) => ({
    contents: [
      { uri: uri.href, mimeType: "application/json", text: JSON.stringify({ id, data: `Data for ID: ${id}` }) },
    ],
  }));
}

function addPrompts(server) {
  const user = (...contents) => ({ messages: contents.map((content) => ({ role: "user", content })) });
  const add = (id, properties, handler) => {
    const argsSchema = properties && fromJsonSchema(object(properties));
    server.registerPrompt(id, { description: `The ${id} fixture`, argsSchema }, handler);
  };
  const source = embedded(undefined, "text/plain", "Embedded resource content for testing.");
  add("test_simple_prompt", undefined, () => user(text("This is a simple prompt for testing.")));
  add("test_prompt_with_arguments", { arg1: string, arg2: string }, ({ arg1, arg2 }) =>
    user(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
  );
  add("test_prompt_with_embedded_resource", { resourceUri: string }, ({ resourceUri: uri }) =>
    user({ ...source, resource: { ...source.resource, uri } }, text("Please read the resource above.")),
  );
  add("test_prompt_with_image", undefined, () => user(image, text("Please look at the image above.")));
  add("test_input_required_result_prompt", undefined, ({ mcpReq }) => {
    const context = acceptedContent(mcpReq.inputResponses, "user_context")?.context;
    if (context) return user(text(`In this context: ${context}`));
    const question = { message: "In which context?", requestedSchema: object({ context: string }) };
    return inputRequired({ inputRequests: { user_context: inputRequired.elicit(question) } });
  });
}

/** A server that offers nothing yet. What it can do with tools, prompts and resources is declared as they come. */
export function bare() {
  const capabilities = { resources: { subscribe: true, listChanged: true }, logging: {}, completions: {} };
  const options = { capabilities, requestState: { verify: state.verify } };
  return new McpServer({ name: "conformance-fixtures", version: "1.0.0" }, options);
}

/** Puts every fixture on a server. `notify` tells the subscribers of the current revision about changes. */
export function describe(server, notify) {
  const known = unfinished.map(([id, description, handler]) => {
    return [id, description, object(), (_args, context) => handler(context.mcpReq)];
  });
  for (const [id, description, schema, handler] of [...tools(notify), ...asking, ...known]) {
    server.registerTool(id, { description, inputSchema: fromJsonSchema(schema) }, handler);
  }
  addResources(server);
  addPrompts(server);
  server.server.setRequestHandler("resources/subscribe", () => ({}));
  server.server.setRequestHandler("resources/unsubscribe", () => ({}));
  server.server.setRequestHandler("completion/complete", ({ params }) => {
    const values = ["paris", "park", "party"].filter((value) => value.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });
  return server;
}
