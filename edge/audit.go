package edge

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"msee/dataplane"
	"msee/dataplane/fib"
)

// The audit holds what forwarding does against what it should do: each VRF's
// FIB, and the groups that it leads to, against its RIB. It repairs what
// differs. There should never be anything: each finding is a fault of this
// program, logged as an error and counted.

// AuditStatus is what a VRF's audits found.
type AuditStatus struct {
	VRF      string        `json:"vrf"`
	Audits   int           `json:"audits"`   // since the start
	Repaired int           `json:"repaired"` // since the start; 0 in a sound device
	Last     time.Time     `json:"last"`
	Took     time.Duration `json:"took"`
	Prefixes int           `json:"prefixes"` // in the FIB
	Findings []string      `json:"findings"` // of the last audit that had any; the first few
}

const (
	// auditEvery is how often each VRF is audited, and auditShare at most what
	// part of the control loop's time goes into it: a million routes take a
	// second.
	auditEvery = time.Minute
	auditShare = 100
	// keepFindings bounds what is kept and logged of one audit.
	keepFindings = 10
)

// auditDue audits the VRF whose turn it is, if there is one.
func (e *Edge) auditDue(now time.Time) {
	var due *vrf
	for _, v := range e.vrfs {
		if now.Sub(v.audit.Last) >= max(auditEvery, auditShare*v.audit.Took) && (due == nil || v.audit.Last.Before(due.audit.Last)) {
			due = v
		}
	}
	if due != nil {
		e.auditVRF(due, now)
	}
}

// auditVRF audits one VRF and repairs what it finds.
func (e *Edge) auditVRF(v *vrf, now time.Time) {
	v.fwd.commit() // what is on its way is no finding
	want := make(map[netip.Prefix]*group, len(v.fwd.routed))
	for prefix, nextHops := range v.rib.NextHops() {
		want[prefix] = e.routeTo(v, nextHops)
	}
	for prefix := range v.repair.kept {
		if g := v.fwd.routed[prefix]; g != nil && want[prefix] == nil {
			want[prefix] = g
		}
	}
	findings := v.fwd.audit(want)
	a := &v.audit
	a.Audits++
	a.Last, a.Took, a.Prefixes = now, time.Since(now), v.fwd.table.Len4()+v.fwd.table.Len6()
	if len(findings) == 0 {
		return
	}
	a.Repaired += len(findings)
	a.Findings = findings[:min(len(findings), keepFindings)]
	e.log.Error("the FIB was not what the RIB says; repaired", "vrf", v.cfg.Name, "findings", len(findings), "first", a.Findings)
}

// audit makes the routes those of want and the table that of the routes, and
// says where they were not.
func (f *forwarding) audit(want map[netip.Prefix]*group) (findings []string) {
	find := func(prefix netip.Prefix, format string, args ...any) {
		findings = append(findings, prefix.String()+": "+fmt.Sprintf(format, args...))
	}
	for prefix, g := range want {
		if g != f.routed[prefix] {
			find(prefix, "leads to %v, not to %v", f.routed[prefix], g)
			f.set(f.routed, prefix, g)
		}
	}
	for prefix, g := range f.routed {
		if want[prefix] == nil {
			find(prefix, "leads to %v, but the RIB has no route", g)
			f.set(f.routed, prefix, nil)
		}
	}
	for _, g := range f.groups {
		if g.users == 0 { // made for want, and not needed
			f.free(g)
		}
	}
	f.commit()
	if f.auditTable(find) || f.auditGroups(find) {
		f.table = fib.New[*dataplane.NextHopGroup]()
		for _, routes := range []map[netip.Prefix]*group{f.routed, f.connected} {
			for prefix, g := range routes {
				f.changes = append(f.changes, fib.Change[*dataplane.NextHopGroup]{Prefix: prefix, Value: g.NextHopGroup})
			}
		}
		// publish commits them
	}
	return findings
}

// auditTable compares the table with the routes, prefix by prefix, and what a
// packet's lookup finds with what it should.
func (f *forwarding) auditTable(find func(netip.Prefix, string, ...any)) (wrong bool) {
	n := 0
	for prefix, got := range f.table.All() {
		n++
		want := f.effective(prefix)
		if want == nil || want.NextHopGroup != got {
			find(prefix, "the FIB leads elsewhere than the route")
			wrong = true
		}
		_, byPrefix, _ := f.table.LookupPrefix(prefix.Addr())
		if byAddr, _ := f.table.Lookup(prefix.Addr()); byAddr != byPrefix {
			find(prefix, "its first address is looked up as if by another route")
			wrong = true
		}
	}
	routes := len(f.connected)
	for prefix := range f.routed {
		if f.connected[prefix] == nil {
			routes++
		}
	}
	if n == routes {
		return wrong
	}
	for _, prefix := range slices.Concat(slices.Collect(maps.Keys(f.connected)), slices.Collect(maps.Keys(f.routed))) {
		if _, ok := f.table.Get(prefix); !ok {
			find(prefix, "not in the FIB")
			wrong = true
		}
	}
	return wrong
}

// auditGroups compares each group's members with the adjacencies they stand for.
func (f *forwarding) auditGroups(find func(netip.Prefix, string, ...any)) (wrong bool) {
	for _, g := range f.groups {
		members := slices.Concat(g.Members, g.Backup)
		ok := len(members) == len(g.hops)
		for i := 0; ok && i < len(members); i++ {
			a := f.adjacencies[g.hops[i]]
			ok = a != nil && a.Adjacency == members[i]
		}
		if ok {
			continue
		}
		wrong = true
		// Groups never change: another one takes its place.
		bad := *g
		f.free(g)
		fresh := f.group(bad.Kind, bad.out, bad.hops[:bad.members], bad.hops[bad.members:])
		fresh.users = bad.users
		for _, routes := range []map[netip.Prefix]*group{f.connected, f.routed} {
			for prefix, old := range routes {
				if old == g {
					find(prefix, "a next hop of its group is not the neighbor's adjacency")
					routes[prefix] = fresh
				}
			}
		}
	}
	return wrong
}

// effective is the route that counts of a prefix's.
func (f *forwarding) effective(prefix netip.Prefix) *group {
	if g := f.connected[prefix]; g != nil {
		return g
	}
	return f.routed[prefix]
}

// String names a group by its next hops.
func (g *group) String() string {
	if g == nil {
		return "nothing"
	}
	return g.key
}

// Audit audits every VRF now and returns what was found.
func (e *Edge) Audit() (rows []AuditStatus, err error) {
	err = e.do(func() {
		for _, v := range e.vrfs {
			e.auditVRF(v, time.Now())
		}
		rows = e.audits()
	})
	return rows, err
}

// Audits returns what the audits so far have found.
func (e *Edge) Audits() (rows []AuditStatus, err error) {
	err = e.do(func() { rows = e.audits() })
	return rows, err
}

func (e *Edge) audits() (rows []AuditStatus) {
	for _, c := range e.device.VRFs {
		a := e.vrfs[c.Name].audit
		a.VRF = c.Name
		rows = append(rows, a)
	}
	return rows
}
