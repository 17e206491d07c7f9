package test

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"msee/edge"
	"msee/netns"
)

// What is lost is counted somewhere: by a device of ours, by the kernel in a namespace
// of the lab, or by the kernel for all of them.

// drops are counters by what they count.
type drops map[string]uint64

// drops reads every counter of something lost that there is, of the lab's devices and
// of the kernel.
func (l *testLab) drops() drops {
	l.t.Helper()
	d := drops{}
	for _, node := range slices.Concat(msees, gateways) {
		for _, p := range show[edge.PortStatus](l, node, "ports") {
			at := node + " port " + p.Name + ": "
			d[at+"not sent"], d[at+"ring full"], d[at+"errors"] = p.TxDrops, p.RxDropped, p.Errors
			for verdict, n := range p.Verdicts {
				if strings.HasPrefix(verdict, "drop-") || verdict == "punt-glean" {
					d[at+verdict] = n
				}
			}
			for verdict, n := range p.OwnDrops {
				d[at+"own "+verdict] = n
			}
		}
	}
	entries, err := os.ReadDir(netns.Dir)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		if name, ok := strings.CutPrefix(e.Name(), l.name+"."); ok {
			if err := netns.Do(e.Name(), func() error { return d.kernel(name + ": ") }); err != nil {
				l.t.Fatal(err)
			}
		}
	}
	// These the kernel counts for all namespaces together.
	for _, table := range []string{"arp_cache", "ndisc_cache"} {
		d.columns(table+" ", "/proc/1/net/stat/"+table, "res_failed", "forced_gc_runs", "unresolved_discards", "table_fulls")
	}
	d.softnet()
	return d
}

// lost finds among the names of counters those of something lost.
var lost = regexp.MustCompile(`(?i)drop|discard|err|fail|noroute|overflow|prune|unreach|collapsed`)

// kernel reads what the kernel counts in the namespace that the caller is in.
func (d drops) kernel(at string) error {
	for _, file := range []string{"snmp", "netstat"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + file)
		if err != nil {
			return err
		}
		lines := strings.Split(string(data), "\n") // in pairs: names, values
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for k, name := range names[min(1, len(names)):] {
				d.note(at+names[0]+" "+name, name, values[k+1])
			}
		}
	}
	data, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 {
			d.note(at+f[0], f[0], f[1])
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, link := range links {
		a := link.Attrs()
		if s := a.Statistics; s != nil {
			d[at+a.Name+" rx dropped"], d[at+a.Name+" tx dropped"] = s.RxDropped, s.TxDropped
			d[at+a.Name+" errors"] = s.RxErrors + s.TxErrors
		}
		qdiscs, err := netlink.QdiscList(link)
		if err != nil {
			return err
		}
		for _, q := range qdiscs {
			// What a clsact drops is what our ports have had: see port.Packet.
			if s := q.Attrs().Statistics; s != nil && s.Queue != nil && q.Type() != "clsact" {
				d[fmt.Sprintf("%s%s %s %x dropped", at, a.Name, q.Type(), q.Attrs().Handle)] = uint64(s.Queue.Drops)
			}
		}
	}
	return nil
}

// note takes a counter if its name is that of something lost.
func (d drops) note(key, name, value string) {
	if n, err := strconv.ParseUint(value, 10, 64); err == nil && lost.MatchString(name) {
		d[key] = n
	}
}

// columns adds up those columns of a table with a line of hexadecimal numbers for each
// processor. Where there is no such file there is nothing to add.
func (d drops) columns(at, file string, names ...string) {
	f, err := os.Open(file)
	if err != nil {
		return
	}
	defer f.Close()
	var header []string
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if header == nil {
			header = fields
			continue
		}
		for i, v := range fields {
			if n, err := strconv.ParseUint(v, 16, 64); err == nil && i < len(header) && slices.Contains(names, header[i]) {
				d[at+header[i]] += n
			}
		}
	}
}

// softnet adds what processors had no room for in their backlogs.
func (d drops) softnet() {
	data, err := os.ReadFile(filepath.Join("/proc/net", "softnet_stat"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 {
			n, _ := strconv.ParseUint(f[1], 16, 64)
			d["softnet dropped"] += n
		}
	}
}

// since lists what has grown.
func (d drops) since(before drops) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(d)) {
		if n := d[key] - before[key]; n != 0 {
			fmt.Fprintf(&b, "\n  %+d %s", int64(n), key)
		}
	}
	return b.String()
}
