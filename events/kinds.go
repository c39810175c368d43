package events

// Kinds of events. Each begins with what it is about. A kind once released
// keeps its name: alerts and dashboards select by it.
const (
	// ManagerStarted: a manager began to serve.
	ManagerStarted = "manager.started"
	// ManagerStopped: a manager is about to stop, on purpose.
	ManagerStopped = "manager.stopped"
	// StateRestored: the control state was restored from a backup; the epoch rose.
	StateRestored = "state.restored"

	// NodeEnrolled: a node proved a join token and got its identity.
	NodeEnrolled = "node.enrolled"
	// NodeRefused: an enrollment was refused; the message says why.
	NodeRefused = "node.refused"
	// NodeJoined: an enrolled node polled for the first time, or again after it had left.
	NodeJoined = "node.joined"
	// NodeAlive: a node that was suspect, unreachable or down is back.
	NodeAlive = "node.alive"
	// NodeSuspect: gossip doubts a node; nothing else does yet.
	NodeSuspect = "node.suspect"
	// NodeUnreachable: neither poll nor gossip reach a node.
	NodeUnreachable = "node.unreachable"
	// NodeDown: a node was unreachable for longer than down_after.
	NodeDown = "node.down"
	// NodeLeft: a node stopped on purpose.
	NodeLeft = "node.left"
	// NodeFlapping: a node changed its state too often in a short time.
	NodeFlapping = "node.flapping"
	// NodeForgotten: an operator removed a node; a valid token enrolls it anew.
	NodeForgotten = "node.forgotten"
	// NodeRevoked: an operator barred a node's key and id for good.
	NodeRevoked = "node.revoked"
	// NodeDrained: an operator ordered a node to stop taking traffic.
	NodeDrained = "node.drained"
	// NodeUndrained: an operator let a drained node take traffic again.
	NodeUndrained = "node.undrained"
	// NodeRestartOrdered: an operator ordered one graceful restart of a node's worker.
	NodeRestartOrdered = "node.restart_ordered"
	// NodeRestarted: a node reported that it carried out a restart order.
	NodeRestarted = "node.restarted"
	// NodeDrifted: a node runs another revision than the one it should.
	NodeDrifted = "node.drifted"
	// NodeSettled: a node that had drifted runs again what it should.
	NodeSettled = "node.settled"

	// GossipKeyRotated: the gossip key changed, as after a node was revoked.
	GossipKeyRotated = "gossip.key_rotated"

	// RevisionCreated: a configuration was validated and became a revision.
	RevisionCreated = "revision.created"
	// RevisionRefused: a configuration was refused; the data list the faults.
	RevisionRefused = "revision.refused"

	// RolloutStarted: a group began to move to another revision.
	RolloutStarted = "rollout.started"
	// RolloutNodeRefused: a node could not apply the revision and kept its own.
	RolloutNodeRefused = "rollout.node_refused"
	// RolloutQueued: a rollout waits for the end of another one of its group.
	RolloutQueued = "rollout.queued"
	// RolloutStep: a step of a rollout began; the message says which.
	RolloutStep = "rollout.step"
	// RolloutBake: the nodes of a step have confirmed and are watched.
	RolloutBake = "rollout.bake"
	// RolloutVerdict: a gate passed or failed; the data are the verdict.
	RolloutVerdict = "rollout.verdict"
	// RolloutAsks: a gate had not enough evidence in time: promote or abort.
	RolloutAsks = "rollout.asks"
	// RolloutPaused: an operator paused a rollout.
	RolloutPaused = "rollout.paused"
	// RolloutResumed: an operator let a paused rollout go on.
	RolloutResumed = "rollout.resumed"
	// RolloutPromoted: an operator let a step pass without its gate.
	RolloutPromoted = "rollout.promoted"
	// RolloutRollingBack: a rollout failed; the nodes that have its revision go back.
	RolloutRollingBack = "rollout.rolling_back"
	// RolloutReport: the comparison of before and after a rollout was written.
	RolloutReport = "rollout.report"
	// RolloutCompleted: every node that had to confirm did.
	RolloutCompleted = "rollout.completed"
	// RolloutFailed: a rollout ended because nodes refused, crashed, or a gate failed.
	RolloutFailed = "rollout.failed"
	// RolloutAborted: an operator ended a rollout; the group goes back.
	RolloutAborted = "rollout.aborted"
	// RolloutSuperseded: a newer rollout of the group ended this one.
	RolloutSuperseded = "rollout.superseded"

	// LicenseInstalled: a license took effect.
	LicenseInstalled = "license.installed"
	// LicenseRefused: a license was not taken; the last valid one stays.
	LicenseRefused = "license.refused"
	// LicenseWarning: a license ends soon.
	LicenseWarning = "license.warning"
	// LicenseExpired: a license ended.
	LicenseExpired = "license.expired"

	// TokenCreated: a join or API token was made.
	TokenCreated = "token.created"
	// TokenRevoked: a token was revoked.
	TokenRevoked = "token.revoked"
	// LoginFailed: somebody presented a wrong token or an old login link.
	LoginFailed = "security.login_failed"

	// MetricsSeriesLimit: a sender reached a limit of series and is refused new
	// ones; the message names the attribute with the most values.
	MetricsSeriesLimit = "metrics.series_limit"

	// OTLPIdentityConflict: two writers send under one identity; the message
	// names the setting that tells them apart.
	OTLPIdentityConflict = "otlp.identity_conflict"
)
