package rollout

import "fmt"

// count says how many, as in "1 node" and "2 nodes".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// have is "has" or "have", as it goes with count.
func have(n int) string {
	if n == 1 {
		return "has"
	}
	return "have"
}

// are is "is" or "are".
func are(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}
