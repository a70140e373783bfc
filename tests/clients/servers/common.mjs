// What the JavaScript servers beside this file share. See common.py.

export let given_up = 0;

/** Waits in steps, and tells of each where somebody wants to hear of it. */
export async function wait({ seconds = 10, steps = 5 }, signal, report) {
  for (let step = 1; step <= steps; step += 1) {
    await new Promise((go) => setTimeout(go, (seconds * 1000) / steps));
    if (signal?.aborted) {
      given_up += 1;
      throw new Error("given up");
    }
    await report?.(step, steps);
  }
  return `waited ${seconds} seconds`;
}

export const text = (said) => ({ content: [{ type: "text", text: said }] });

/** Says that it is ready, and ends with its standard input. */
export function announce(server) {
  process.stdout.write(`ready ${server.address().port}\n`);
  process.stdin.on("end", () => process.exit(0)).resume();
  process.on("SIGTERM", () => process.exit(0));
}
