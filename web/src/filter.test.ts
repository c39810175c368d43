import { describe, expect, test } from "vitest";
import { matches, parseFilter } from "./filter";

const FIELDS = ["state", "group", "label"];
const row = { state: "down", group: "eu-1", name: "gw-3", address: "10.0.0.3:8080", label: ["zone=a", "disk=fast one"] };

describe("a filter", () => {
  test.each([
    ["", true],
    ["gw", true],
    ["GW-3", true],
    ["state:down", true],
    ["state:d group:eu", true],
    ["state:alive", false],
    ["-state:alive", true],
    ["-gw", false],
    ["state:", true],
    ["10.0.0.3:8080", true],
    ["billing:8080", false],
    ["label:zone=a", true],
    ["label:zone=b", false],
    ['label:"disk=fast one"', true],
    ['"disk=fast', true],
    ["eu-1 nothing", false],
  ])("%s", (text, want) => expect(matches(parseFilter(text, FIELDS), row)).toBe(want));

  test("never throws on what people type", () => {
    for (const text of ['"', "-", "--", ":", "::", "-:", '""', "a:b:c", "\\", "(["]) expect(() => matches(parseFilter(text, FIELDS), row)).not.toThrow();
  });
});
