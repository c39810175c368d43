// Headless Chromium over a pipe: the DevTools protocol without a library.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** Starts Chromium; send(method, params, session) answers with the result. */
export function startChromium() {
  const profile = mkdtempSync(join(tmpdir(), "binnacle-chromium-"));
  const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-pipe", `--user-data-dir=${profile}`];
  const child = spawn(process.env.CHROMIUM ?? "chromium", flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"] });
  const [, , , input, output] = child.stdio;
  const waiting = new Map();
  const listeners = new Set();
  let id = 0;
  let rest = Buffer.alloc(0);
  output.on("data", (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf(0); end >= 0; end = rest.indexOf(0)) {
      const message = JSON.parse(rest.subarray(0, end).toString());
      rest = rest.subarray(end + 1);
      const w = waiting.get(message.id);
      if (w) {
        waiting.delete(message.id);
        message.error ? w.reject(new Error(message.error.message)) : w.resolve(message.result);
      } else for (const l of listeners) l(message);
    }
  });
  return {
    send: (method, params = {}, sessionId) =>
      new Promise((resolve, reject) => {
        waiting.set(++id, { resolve, reject });
        input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
      }),
    listen: (l) => listeners.add(l),
    // Asked to close, it ends its helpers first; killed, they would go on writing.
    async stop() {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      input.write(`${JSON.stringify({ id: ++id, method: "Browser.close" })}\0`);
      await gone;
      rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
    },
  };
}
