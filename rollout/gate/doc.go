// Package gate judges a canary against its control by what both served: counts of
// requests, of errors, of client errors and of slow answers. It reads no telemetry
// and no clock; State.Judge is a function of what it is given, so that a verdict can
// be computed again from the evidence that is shown with it.
//
// A gate fails when one of its comparisons finds the canary worse, passes when
// there are enough requests and the canary is shown to be no worse by much, and
// is inconclusive otherwise. Failing and passing are tests of their own:
//
//   - Each comparison fails when its e-value (sequential.go) exceeds 1/alpha, at
//     any look. The errors of all traffic fail also by the exact test (exact.go),
//     which is made once at each milestone of requests. All alphas add up to
//     0.01, so that a gate whose canary is as good as its control fails with
//     at most that probability in minutes like the hours before, and with at most
//     maxCeiling times that whatever happens to both. Where those hours are not
//     known, it is 0.01 whatever happens to both.
//   - A pass needs, beside enough requests, that the upper bound of the
//     difference is under a margin: a canary that is worse by the margin passes
//     in 2.5 % of looks, whatever the traffic. Thin traffic is not good health.
package gate
