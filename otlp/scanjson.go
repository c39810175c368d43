package otlp

// scanJSON is to JSON what scan is to protobuf, and coarser: it knows no
// schema. Every object costs as much as the largest there is, every value in a
// list as much as a number in a growing slice. What passes is scanned once
// more, as protobuf, after decoding, so that the same limits hold.
//
// It does not validate: the decoder does.
func scanJSON(b []byte, lim limits) (tally, error) {
	const (
		objectCost = 240
		listCost   = 16
		// A request is 16 levels deep above the values of an attribute, and
		// each level of those is four in JSON:
		// {"arrayValue":{"values":[{
		baseDepth, perDepth = 20, 4
	)
	var (
		t     = tally{cost: int64(len(b)) * 3 / 2}
		depth int
		max   = baseDepth + perDepth*lim.depth
	)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', '[':
			if depth++; depth > max {
				return t, tooMany("levels of nested values", lim.depth)
			}
			t.cost += objectCost
		case '}', ']':
			depth--
		case ',':
			t.cost += listCost
		}
		if t.cost > lim.cost {
			return t, refuse(tooLarge, "the request would take more than %d bytes to decode: send smaller batches", lim.cost)
		}
	}
	return t, nil
}
