import { expect, test } from "vitest";
import { pieces, plain } from "./words";

const names = new Map([["n-0123456789ab", "gw-1"], ["n-00000000000f", "<b>"]]);

test("ids become names and links, all else stays as it is", () => {
  expect(pieces("r2: step 1 of 3: revision 2 goes to n-0123456789ab, r3: no", names)).toEqual([
    { text: "r2", href: "/rollouts/r2" },
    { text: ": step 1 of 3: revision 2 goes to " },
    { text: "gw-1", href: "/nodes/n-0123456789ab" },
    { text: ", r3: no" },
  ]);
  expect(plain("n-0123456789ab and n-ffffffffffff left", names)).toBe("gw-1 and n-ffffffffffff left");
  expect(pieces("", names)).toEqual([]);
});

test("a hostile name is text", () => {
  expect(pieces("n-00000000000f left", names)[0]).toEqual({ text: "<b>", href: "/nodes/n-00000000000f" });
});
