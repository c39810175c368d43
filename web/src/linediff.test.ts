import { describe, expect, test } from "vitest";
import { hunks, layOut, pairLines } from "./linediff";

/** A pairing in short: " a" alike, "-a" left only, "+b" right only, "~a|b" changed. */
const short = (before: string, after: string): string[] =>
  pairLines(before, after).map((p) => (p.kind === "same" ? ` ${p.left}` : p.kind === "removed" ? `-${p.left}` : p.kind === "added" ? `+${p.right}` : `~${p.left}|${p.right}`));

describe("pairs of lines", () => {
  test.each([
    ["a\nb\nc", "a\nb\nc", [" a", " b", " c"]],
    ["a\nb\nc", "a\nx\nc", [" a", "~b|x", " c"]],
    ["a\nc", "a\nb\nc", [" a", "+b", " c"]],
    ["a\nb\nc", "a\nc", [" a", "-b", " c"]],
    ["", "a", ["~|a"]],
  ])("%j to %j", (before, after, want) => expect(short(before, after)).toEqual(want));

  test("both sides read as they were, whatever the texts", () => {
    let seed = 7;
    const next = (n: number): number => (seed = (seed * 1103515245 + 12345) % 2147483648) % n;
    for (let i = 0; i < 300; i++) {
      const make = (): string => Array.from({ length: next(12) + 1 }, () => "abc"[next(3)]).join("\n");
      const [before, after] = [make(), make()];
      const pairs = pairLines(before, after);
      expect(pairs.flatMap((p) => p.left ?? []).join("\n")).toBe(before);
      expect(pairs.flatMap((p) => p.right ?? []).join("\n")).toBe(after);
      for (const p of pairs) if (p.kind === "same") expect(p.left).toBe(p.right);
    }
  });
  test("texts too far apart are wholly changed and take no time", () => {
    const text = (s: string): string => Array.from({ length: 20_000 }, (_, i) => s + i).join("\n");
    const begin = performance.now();
    expect(pairLines(text("a"), text("b")).every((p) => p.kind === "changed")).toBe(true);
    expect(performance.now() - begin).toBeLessThan(5000);
  });
});

test("what is alike is folded", () => {
  const lines = Array.from({ length: 30 }, (_, i) => String(i));
  const changed = lines.with(10, "x").with(25, "y");
  const h = hunks(pairLines(lines.join("\n"), changed.join("\n")), 2);
  expect(h.hunks.map((x) => [x.skipped, x.pairs.length])).toEqual([[8, 5], [10, 5]]);
  expect(h.skipped).toBe(2);
});

test("JSON on one line is laid out", () => {
  expect(layOut('{"a":[1]}\n')).toEqual({ text: '{\n  "a": [\n    1\n  ]\n}', laidOut: true });
  expect(layOut('{\n"a":1}').laidOut).toBe(false);
  expect(layOut("not json").laidOut).toBe(false);
});
