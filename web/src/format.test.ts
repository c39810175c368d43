import { describe, expect, test } from "vitest";
import * as f from "./format";

/** plain makes no-break spaces readable in expectations. */
const plain = (s: string): string => s.replaceAll("\u00a0", " ");

describe("numbers", () => {
  test.each([
    [0, "0"], [1.2845, "1.28"], [12.845, "12.8"], [128.45, "128"], [99.96, "100"], [0.42, "0.42"], [34, "34"], [1234, "1234"], [-5.678, "-5.68"], [1e-7, "1e-7"],
  ])("sig3(%d) = %s", (n, want) => expect(f.sig3(n)).toBe(want));

  test.each([
    [0, "0"], [3.2, "3.2 /s"], [999.4, "999 /s"], [999.6, "1 k/s"], [1284, "1.28 k/s"], [2_500_000, "2.5 M/s"], [0.0001, "<0.001 /s"], [null, "–"], [undefined, "–"], [Number.NaN, "–"],
  ])("rate(%s) = %s", (n, want) => expect(plain(f.rate(n))).toBe(want));

  test.each([
    [0, "0"], [0.0042, "0.42 %"], [1, "100 %"], [0.12345, "12.3 %"], [1e-9, "<0.001 %"], [null, "–"],
  ])("ratio(%s) = %s", (n, want) => expect(plain(f.ratio(n))).toBe(want));

  test.each([[0.0291, "3 %"], [0.004, "1 %"], [0.374, "37 %"], [0.96, "96 %"], [0.996, "all"]])("roughly(%s) = %s", (n, want) => expect(plain(f.roughly(n))).toBe(want));

  test.each([
    [0, "0"], [12, "12"], [2000, "2,000"], [12345678, "12,345,678"], [100, "100"],
  ])("exact(%d) = %s", (n, want) => expect(f.exact(n)).toBe(want));

  test.each([
    [0, "0 B"], [512, "512 B"], [1536, "1.5 KiB"], [1024 * 1024, "1 MiB"], [null, "–"],
  ])("bytes(%s) = %s", (n, want) => expect(plain(f.bytes(n))).toBe(want));

  test.each([[950, "950"], [1280, "1.28 k"], [3_100_000, "3.1 M"]])("short(%d) = %s", (n, want) => expect(plain(f.short(n))).toBe(want));
});

describe("durations", () => {
  test.each([
    [0, "0"], [0.00042, "420 µs"], [0.0342, "34.2 ms"], [0.9996, "1 s"], [0.9994, "999 ms"], [1.2, "1.2 s"], [59.96, "1 min"], [180, "3 min"], [null, "–"],
  ])("seconds(%s) = %s", (n, want) => expect(plain(f.seconds(n))).toBe(want));

  test.each([
    [-5, "0 s"], [12_300, "12 s"], [61_000, "1 min"], [3_600_000, "1 h"], [7_500_000, "2 h 5 min"], [40_000_000, "11 h"], [4 * 86_400_000, "4 d"],
  ])("span(%d) = %s", (n, want) => expect(plain(f.span(n))).toBe(want));

  test.each([[30, "last 30 s"], [60, "last 1 min"], [300, "last 5 min"], [3600, "last 1 h"], [86400, "last 24 h"]])(
    "windowName(%d) = %s", (n, want) => expect(plain(f.windowName(n))).toBe(want));

  test("ago", () => {
    expect(f.ago(1000, 1500)).toBe("just now");
    expect(plain(f.ago(0, 185_000))).toBe("3 min ago");
  });
});

describe("times", () => {
  const now = new Date(2026, 10, 23, 14, 5, 9).getTime();
  test("clock", () => {
    expect(f.clock(now)).toBe("14:05");
    expect(f.clock(now, true)).toBe("14:05:09");
  });
  test("when leaves out what today says", () => {
    expect(f.when(now - 3_600_000, now)).toBe("13:05");
    expect(f.when(new Date(2026, 10, 22, 2, 41).getTime(), now)).toBe("Nov 22 02:41");
    expect(f.when(new Date(2025, 10, 22, 2, 41).getTime(), now)).toBe("2025 Nov 22");
  });
  test("hoverTime", () => {
    const at = Date.UTC(2026, 10, 23, 1, 41, 7);
    expect(plain(f.hoverTime(at, at + 180_000))).toBe("2026-11-23 01:41:07 UTC, 3 min ago");
    expect(plain(f.hoverTime(at, at - 180_000))).toBe("2026-11-23 01:41:07 UTC, in 3 min");
  });
  test("parseTime refuses Go's zero time", () => {
    expect(f.parseTime("0001-01-01T00:00:00Z")).toBeUndefined();
    expect(f.parseTime("nonsense")).toBeUndefined();
    expect(f.parseTime(undefined)).toBeUndefined();
    expect(f.parseTime("1970-01-01T00:00:01Z")).toBe(1000);
  });
});

describe("words", () => {
  test("plural", () => {
    expect(f.plural(1, "node")).toBe("1 node");
    expect(f.plural(3000, "node")).toBe("3,000 nodes");
  });
  test.each([[[], ""], [["a"], "a"], [["a", "b"], "a and b"], [["a", "b", "c"], "a, b and c"]])("and(%j) = %s", (names, want) => expect(f.and(names as string[])).toBe(want));
});
