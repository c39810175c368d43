package rollout

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// CreateRevision validates a configuration and makes it a revision of group g.
// The same bytes again give the revision that they are already. No node is
// touched.
//
// A configuration with faults gives an *api.Problem that lists all of them. A
// dry run stores nothing and answers with revision number 0, or with the
// revision that these bytes are already.
func (s *Service) CreateRevision(ctx context.Context, g binnacle.Group, r api.NewRevision) (api.CreatedRevision, error) {
	if err := binnacle.CheckName("group", string(g)); err != nil {
		return api.CreatedRevision{}, invalid("%v", err)
	}
	if len(r.Config) > maxConfigBytes {
		return api.CreatedRevision{}, problem(http.StatusRequestEntityTooLarge, "Configuration too large",
			"the configuration has %d bytes, at most %d are taken: move large parts, such as static answers, into backends", len(r.Config), maxConfigBytes)
	}
	if len(r.Message) > maxErrorBytes {
		return api.CreatedRevision{}, invalid("the message has %d bytes, at most %d are taken", len(r.Message), maxErrorBytes)
	}
	sum := sha256.Sum256(r.Config)
	sha := hex.EncodeToString(sum[:])
	if old := s.findRevision(g, sha); old != nil {
		return api.CreatedRevision{Revision: *old, Existing: true}, nil
	}

	format, err := s.formatFor(g, r.Format)
	if err != nil {
		return api.CreatedRevision{}, err
	}
	start := time.Now()
	var faults, warnings []api.Fault
	if format == formatOpaque {
		faults, warnings = checkOpaque(r.Config)
	} else {
		faults, warnings, err = s.validator.Check(ctx, r.Config)
	}
	s.m.validation.UpdateDuration(start)
	if err != nil {
		return api.CreatedRevision{}, fmt.Errorf("validate the configuration: %w", err)
	}
	if len(faults) > 0 {
		s.m.refused.Inc()
		p := refusal(faults)
		if !r.DryRun {
			s.notice(ctx, api.Event{Kind: events.RevisionRefused, Group: g, Actor: r.Author, Message: p.Detail, Data: encode(faults[:min(len(faults), 20)])})
		}
		return api.CreatedRevision{}, p
	}
	rev := api.Revision{
		RevisionRef: api.RevisionRef{SHA256: sha},
		Group:       g,
		Author:      r.Author,
		Message:     r.Message,
		Created:     now(),
		Bytes:       len(r.Config),
		Warnings:    warnings,
	}
	if r.DryRun {
		return api.CreatedRevision{Revision: rev}, nil
	}
	return s.storeRevision(ctx, rev, format, r.Config)
}

// refusal is the problem of a configuration with faults.
func refusal(faults []api.Fault) *api.Problem {
	first := faults[0].Message
	if faults[0].Line > 0 {
		first = fmt.Sprintf("line %d, column %d: %s", faults[0].Line, faults[0].Column, first)
	}
	detail := "the configuration has a fault: " + first
	if len(faults) > 1 {
		detail = fmt.Sprintf("the configuration has %s, the first: %s", count(len(faults), "fault"), first)
	}
	return &api.Problem{Title: "Configuration refused", Status: http.StatusUnprocessableEntity, Detail: detail, Faults: faults}
}

// storeRevision gives rev its number. The bytes are stored first, so that no
// revision is ever without them.
func (s *Service) storeRevision(ctx context.Context, rev api.Revision, format string, config []byte) (api.CreatedRevision, error) {
	s.changes.Lock()
	defer s.changes.Unlock()
	g := rev.Group
	if old := s.findRevision(g, rev.SHA256); old != nil { // the same push twice at once
		return api.CreatedRevision{Revision: *old, Existing: true}, nil
	}
	blob, err := s.blobs.put(ctx, config)
	if err != nil {
		return api.CreatedRevision{}, err
	}
	s.mu.Lock()
	l := s.lineLocked(g)
	group, version := l.group, l.version
	rev.Parent = l.desired.Number
	if rev.Parent == 0 && len(l.revisions) > 0 {
		rev.Parent = l.revisions[len(l.revisions)-1].Number
	}
	old := s.beyondHistoryLocked(g, l)
	s.mu.Unlock()

	if group.Last > 0 && group.Format != format {
		return api.CreatedRevision{}, conflict("group %s got its first revision at the same time, of format %s: push again", g, group.Format)
	}
	group.Format = format
	group.Last++
	rev.Number = group.Last
	record := revisionRecord{
		Revision:  rev,
		Signature: api.SignRevision(s.o.Key, s.o.Cluster, g, rev.RevisionRef),
		Blob:      blob,
	}
	conds := []state.Cond{state.IfVersion(groupKey(g), version), state.IfAbsent(revisionKey(g, rev.Number))}
	ops := []state.Op{state.OpPut(groupKey(g), encode(group)), state.OpPut(revisionKey(g, rev.Number), encode(record))}
	for _, r := range old {
		ops = append(ops, state.OpDelete(revisionKey(g, r.Number)))
	}
	version, err = s.o.Store.TxnVersion(ctx, conds, ops)
	if errors.Is(err, state.ErrConflict) {
		return api.CreatedRevision{}, conflict("another manager changed group %s at the same time: push again", g)
	} else if err != nil {
		return api.CreatedRevision{}, fmt.Errorf("store revision %d of group %s: %w", rev.Number, g, err)
	}

	s.mu.Lock()
	l.group, l.version = group, version
	l.revisions = slices.DeleteFunc(l.revisions, func(r *revisionData) bool { return slices.Contains(old, r) })
	l.revisions = append(l.revisions, &revisionData{record, version})
	s.mu.Unlock()
	s.dropBlobs(ctx, old)
	s.m.created.Inc()
	s.notice(ctx, api.Event{
		Kind: events.RevisionCreated, Group: g, Actor: rev.Author,
		Message: fmt.Sprintf("revision %d (%.12s), %d bytes", rev.Number, rev.SHA256, rev.Bytes),
		Data:    encode(rev.RevisionRef),
	})
	return api.CreatedRevision{Revision: rev}, nil
}

// beyondHistoryLocked returns the revisions that the history has no room for
// once one more is in it: the oldest that nothing refers to.
func (s *Service) beyondHistoryLocked(g binnacle.Group, l *line) []*revisionData {
	excess := len(l.revisions) + 1 - s.o.KeepRevisions
	if excess <= 0 {
		return nil
	}
	inUse := map[binnacle.Revision]bool{l.desired.Number: true}
	for _, r := range s.rollouts {
		if r.rec.Group == g {
			inUse[r.rec.From], inUse[r.rec.To] = true, true
		}
	}
	var old []*revisionData
	for _, r := range l.revisions {
		if len(old) < min(excess, 100) && !inUse[r.Number] {
			old = append(old, r)
		}
	}
	return old
}

// dropBlobs removes the bytes of dropped revisions, unless another revision has
// the same. What fails stays behind and harms nobody.
func (s *Service) dropBlobs(ctx context.Context, old []*revisionData) {
	for _, r := range old {
		s.mu.Lock()
		used := false
		for _, l := range s.lines {
			used = used || slices.ContainsFunc(l.revisions, func(have *revisionData) bool { return have.Blob.SHA256 == r.Blob.SHA256 })
		}
		s.mu.Unlock()
		if used {
			continue
		}
		if err := s.o.Store.Txn(context.WithoutCancel(ctx), nil, r.Blob.drop()); err != nil {
			s.log.Warn("the bytes of a dropped revision stay behind", "group", r.Group, "revision", r.Number, "err", err)
		}
	}
}

// findRevision returns the revision of the group with this hash, or nil.
func (s *Service) findRevision(g binnacle.Group, sha string) *api.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lines[g]
	if l == nil {
		return nil
	}
	for _, r := range l.revisions {
		if r.SHA256 == sha {
			rev := r.Revision
			return &rev
		}
	}
	return nil
}

// Revisions returns the history of a group, newest last.
func (s *Service) Revisions(ctx context.Context, g binnacle.Group) ([]api.Revision, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []api.Revision{}
	if l := s.lines[g]; l != nil {
		for _, r := range l.revisions {
			out = append(out, r.Revision)
		}
	}
	return out, nil
}

// Revision returns one revision with its configuration, byte for byte as it was
// pushed. One that does not exist is an *api.Problem.
func (s *Service) Revision(ctx context.Context, g binnacle.Group, n binnacle.Revision) (api.Revision, []byte, error) {
	s.mu.Lock()
	r := s.revisionLocked(g, n)
	s.mu.Unlock()
	if r == nil {
		return api.Revision{}, nil, noRevision(g, n)
	}
	data, err := s.blobs.get(ctx, r.Blob)
	if err != nil {
		return api.Revision{}, nil, fmt.Errorf("revision %d of group %s: %w", n, g, err)
	}
	config, err := decompress(data)
	if err != nil {
		return api.Revision{}, nil, fmt.Errorf("revision %d of group %s: %w", n, g, err)
	}
	return r.Revision, config, nil
}

func noRevision(g binnacle.Group, n binnacle.Revision) *api.Problem {
	if n == 0 {
		return notFound("revision 0 of group %s is each node's own file, which the manager does not know", g)
	}
	return notFound("group %s has no revision %d", g, n)
}

// revisionLocked returns a revision of a group, or nil. It is never changed.
func (s *Service) revisionLocked(g binnacle.Group, n binnacle.Revision) *revisionData {
	l := s.lines[g]
	if l == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(l.revisions, n, func(r *revisionData, n binnacle.Revision) int { return int(int64(r.Number) - int64(n)) })
	if !ok {
		return nil
	}
	return l.revisions[i]
}

// Config returns the gzip-compressed bytes of a configuration by its hash, and
// the groups that it is a revision of: a node of another group must not get it.
// The bytes are shared: nobody may change them. An unknown hash is an
// *api.Problem.
func (s *Service) Config(ctx context.Context, sha string) (gzipped []byte, groups []binnacle.Group, err error) {
	var found *revisionData
	s.mu.Lock()
	for _, g := range sortedKeys(s.lines) {
		for _, r := range s.lines[g].revisions {
			if r.SHA256 == sha {
				found = r
				groups = append(groups, g)
				break
			}
		}
	}
	s.mu.Unlock()
	if found == nil {
		return nil, nil, notFound("no revision has the hash %.80q", sha)
	}
	gzipped, err = s.blobs.get(ctx, found.Blob)
	if err != nil {
		return nil, nil, fmt.Errorf("configuration %.12s: %w", sha, err)
	}
	return gzipped, groups, nil
}
