// Prints what the page weighs and fails above its budget.

import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";

const BUDGET = 150 * 1024;
const dist = new URL("../dist", import.meta.url).pathname;

function files(dir) {
  return readdirSync(dir).flatMap((name) => {
    const path = join(dir, name);
    return statSync(path).isDirectory() ? files(path) : name.startsWith(".") ? [] : [path];
  });
}

let total = 0;
const parts = [];
for (const path of files(dist)) {
  const size = gzipSync(readFileSync(path), { level: 9 }).length;
  total += size;
  parts.push(`${path.slice(dist.length + 1)} ${(size / 1024).toFixed(1)}`);
}
console.log(`page: ${(total / 1024).toFixed(1)} KiB compressed of ${BUDGET / 1024} (${parts.join(", ")})`);
if (total > BUDGET) {
  console.error("page: over its budget; leave something out or load it later");
  process.exit(1);
}
