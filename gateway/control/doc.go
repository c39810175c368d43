// Package control is the wire between the two processes of a node, and between
// a node and the command that asks for its status: small JSON messages in
// length-prefixed frames over a unix socket of mode 0600, with room for file
// descriptors beside them, so that listening sockets can be handed to another
// process. It knows framing, matching of answers to calls, and the messages'
// shapes; what a call does is for its two users, gateway/agent and
// gateway/worker.
package control
