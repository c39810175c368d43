/// <reference types="vite/client" />
import { expect, test } from "vitest";

const sources = import.meta.glob<string>("./**/*.{ts,tsx}", { query: "?raw", import: "default", eager: true });

/** "./components/../store" is "./store". */
const tidy = (path: string): string => `./${path.split("/").reduce<string[]>((parts, p) => (p === ".." ? parts.slice(0, -1) : p === "." ? parts : [...parts, p]), []).join("/")}`;

// Modules that need each other cannot be read one after the other.
test("imports run one way", () => {
  const imports = new Map(Object.entries(sources).map(([file, text]) => {
    const targets = [...text.matchAll(/from "(\.[^"]+)"/g)].map((m) => tidy(`${file}/../${m[1]}`));
    return [file, targets.flatMap((t) => [`${t}.ts`, `${t}.tsx`].filter((f) => f in sources))];
  }));
  const circles: string[] = [];
  const done = new Set<string>();
  const walk = (file: string, way: readonly string[]): void => {
    if (way.includes(file)) circles.push([...way.slice(way.indexOf(file)), file].join(" -> "));
    if (way.includes(file) || done.has(file)) return;
    for (const next of imports.get(file) ?? []) walk(next, [...way, file]);
    done.add(file);
  };
  for (const file of imports.keys()) walk(file, []);
  expect(circles).toEqual([]);
  expect(imports.get("./app.tsx")).toContain("./store.ts");
});
