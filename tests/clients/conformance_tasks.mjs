// The tasks extension (SEP-2663), which the official packages leave to the server: calls that go on after their answer,
// and are asked about with `tasks/get`, answered with `tasks/update` and stopped with `tasks/cancel`.

import { setTimeout as pause } from "node:timers/promises";

import {
  acceptedContent,
  CLIENT_CAPABILITIES_META_KEY,
  fromJsonSchema,
  inputRequired,
  MissingRequiredClientCapabilityError,
  ProtocolError,
  ProtocolErrorCode,
} from "@modelcontextprotocol/server";

const EXTENSION = "io.modelcontextprotocol/tasks";

const said = (text, more) => ({ content: [{ type: "text", text }], ...more });
const question = (message, name, type) =>
  inputRequired.elicit({
    message,
    requestedSchema: { type: "object", properties: { [name]: { type } }, required: [name] },
  });

/** A call that goes on. Each request meets a server made for it, so these outlive the servers. */
class Task {
  static all = new Map();

  #stop = new AbortController();
  #answers = {};
  #answered;
  #outcome = {};

  constructor(work) {
    this.id = crypto.randomUUID();
    this.createdAt = new Date().toISOString();
    this.#becomes("working");
    Task.all.set(this.id, this);
    work(this).then(
      (result) => this.#ends("completed", { result }),
      ({ message }) => this.#ends("failed", { error: { code: ProtocolErrorCode.InternalError, message } }),
    );
  }

  #becomes(status) {
    this.status = status;
    this.lastUpdatedAt = new Date().toISOString();
  }

  #ends(status, outcome) {
    if (this.status === "cancelled") return;
    this.#outcome = outcome;
    this.#becomes(status);
  }

  get signal() {
    return this.#stop.signal;
  }

  /** Waits until all of these are answered. */
  ask(inputRequests) {
    this.#outcome = { inputRequests };
    this.#becomes("input_required");
    return new Promise((resolve) => (this.#answered = resolve));
  }

  answer(inputResponses) {
    if (this.status !== "input_required") return;
    const { inputRequests } = this.#outcome;
    for (const key of Object.keys(inputRequests).filter((key) => key in inputResponses)) {
      this.#answers[key] = inputResponses[key];
      delete inputRequests[key];
    }
    if (Object.keys(inputRequests).length > 0) return;
    this.#outcome = {};
    this.#becomes("working");
    this.#answered(this.#answers);
  }

  cancel() {
    if (this.status !== "working" && this.status !== "input_required") return;
    this.#outcome = {};
    this.#becomes("cancelled");
    this.#stop.abort();
  }

  get face() {
    const { id: taskId, status, createdAt, lastUpdatedAt } = this;
    return { taskId, status, createdAt, lastUpdatedAt, ttlMs: 300_000, pollIntervalMs: 200 };
  }

  get details() {
    return { ...this.face, ...this.#outcome };
  }
}

/** What becomes a task. What can be done `alone` is done without one for a client that has no tasks. */
const jobs = {
  slow_compute: {
    description: "Takes its time",
    alone: true,
    properties: { seconds: { type: "number" }, label: { type: "string" } },
    work: async ({ seconds, label }, task) => {
      await pause(seconds * 1000, undefined, { signal: task?.signal });
      return said(`${label} took ${seconds} s`);
    },
  },
  failing_job: { description: "Fails", work: async () => said("This job fails.", { isError: true }) },
  protocol_error_job: {
    description: "Breaks",
    work: async () => {
      throw new Error("This job breaks.");
    },
  },
  confirm_delete: {
    description: "Asks once while it works",
    properties: { filename: { type: "string" } },
    work: async ({ filename }, task) => {
      const answers = await task.ask({ confirm: question(`Delete ${filename}?`, "confirm", "boolean") });
      return said(acceptedContent(answers, "confirm")?.confirm ? `deleted ${filename}` : `kept ${filename}`);
    },
  },
  multi_input: {
    description: "Asks twice at once while it works",
    work: async (_args, task) => {
      const [first, second] = [question("First?", "name", "string"), question("Second?", "name", "string")];
      const answers = await task.ask({ first, second });
      return said(Object.keys(answers).join(" and "));
    },
  },
  test_tool_with_task: {
    description: "Asks before it begins to work",
    before: ({ inputResponses }) => {
      if (acceptedContent(inputResponses, "user_name")) return undefined;
      return inputRequired({ inputRequests: { user_name: question("What is your name?", "name", "string") } });
    },
    work: async (_args, _task, { inputResponses }) =>
      said(`Worked for ${acceptedContent(inputResponses, "user_name").name}`),
  },
};

function declared({ envelope }) {
  return envelope?.[CLIENT_CAPABILITIES_META_KEY]?.extensions?.[EXTENSION] !== undefined;
}

function mustDeclare(request) {
  const requiredCapabilities = { extensions: { [EXTENSION]: {} } };
  if (!declared(request)) throw new MissingRequiredClientCapabilityError({ requiredCapabilities });
}

/** Answers a call of a job; `undefined` if it is a call of something else or without a task. */
function begin({ params }, { mcpReq }) {
  const job = Object.hasOwn(jobs, params.name) ? jobs[params.name] : undefined;
  if (!job || (job.alone && !declared(mcpReq))) return undefined;
  mustDeclare(mcpReq);
  const unfinished = job.before?.(mcpReq);
  if (unfinished) return unfinished;
  const task = new Task((task) => job.work(params.arguments ?? {}, task, mcpReq));
  return { resultType: "task", ...task.face };
}

function about(server, method, act) {
  const params = fromJsonSchema({ type: "object", properties: { taskId: { type: "string" } }, required: ["taskId"] });
  server.setRequestHandler(method, { params }, ({ taskId }, { mcpReq }) => {
    mustDeclare(mcpReq);
    const task = Task.all.get(taskId);
    if (!task) throw new ProtocolError(ProtocolErrorCode.InvalidParams, `No task ${taskId}`);
    return act(task, mcpReq) ?? {};
  });
}

/** Adds the extension to a server that has no tools yet. */
export function withTasks(server) {
  const inner = server.server;
  inner.registerCapabilities({ extensions: { [EXTENSION]: {} } });
  // What the package puts in place for tools knows nothing of tasks; these calls are answered before it.
  const set = inner.setRequestHandler.bind(inner);
  inner.setRequestHandler = (method, ...rest) => {
    if (method !== "tools/call") return set(method, ...rest);
    const [handle] = rest;
    return set(method, (request, context) => begin(request, context) ?? handle(request, context));
  };
  const add = (name, description, properties, work) => {
    server.registerTool(name, { description, inputSchema: fromJsonSchema({ type: "object", properties }) }, work);
  };
  add("greet", "Answers at once", { name: { type: "string" } }, ({ name }) => said(`Hello, ${name}!`));
  for (const [name, { description, properties = {}, work }] of Object.entries(jobs)) {
    add(name, description, properties, (args) => work(args));
  }
  about(inner, "tasks/get", (task) => task.details);
  about(inner, "tasks/cancel", (task) => task.cancel());
  about(inner, "tasks/update", (task, { inputResponses }) => task.answer(inputResponses ?? {}));
  return server;
}
