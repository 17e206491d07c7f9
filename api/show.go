package api

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"msee/bgp"
	"msee/edge"
)

// Tables for people. Scripts use --json, which prints what the API answers.

// table writes rows in aligned columns under a header.
func table(w io.Writer, header string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, strings.ReplaceAll(header, " ", "\t"))
	for _, r := range rows {
		for i, cell := range r {
			if cell == "" {
				r[i] = "-"
			}
		}
		fmt.Fprintln(t, strings.Join(r, "\t"))
	}
	return t.Flush()
}

// ShowDevices prints the devices themselves.
func ShowDevices(w io.Writer, rows []edge.DeviceStatus, now time.Time) error {
	var out [][]string
	for _, d := range rows {
		var taken []string
		for _, a := range d.TakesOver {
			taken = append(taken, a.String())
		}
		out = append(out, []string{d.Name, string(d.Kind), d.Role, strconv.FormatUint(uint64(d.ASN), 10), d.RouterID.String(),
			strconv.Itoa(d.PID), duration(now.Sub(d.Started)), strconv.Itoa(d.SpeakerRestarts), string(d.Maintenance), strings.Join(taken, ",")})
	}
	return table(w, "DEVICE KIND ROLE AS ROUTER-ID PID RUNS SPEAKER-RESTARTS MAINTENANCE TAKES-OVER", out)
}

// ShowCircuits prints the circuits.
func ShowCircuits(w io.Writer, rows []edge.CircuitStatus) error {
	var out [][]string
	for _, c := range rows {
		out = append(out, []string{c.Name, c.SKU, number(c.BandwidthInMbps), c.Port, number(c.STag),
			strings.Join(c.VRFs, ","), c.ServiceKey})
	}
	return table(w, "CIRCUIT SKU MBPS PORT STAG PEERINGS SERVICE-KEY", out)
}

// ShowPeerings prints the subinterfaces of the peerings and connections.
func ShowPeerings(w io.Writer, rows []edge.PeeringStatus) error {
	var out [][]string
	for _, p := range rows {
		var addrs []string
		for _, a := range p.Addresses {
			addrs = append(addrs, a.String())
		}
		out = append(out, []string{p.VRF, string(p.Side), p.Interface, strings.Join(addrs, ","),
			strconv.Itoa(p.MTU), bytesOf(p.RxBytes), bytesOf(p.TxBytes), count(p.RxDrops), p.Namespace})
	}
	return table(w, "VRF SIDE INTERFACE ADDRESSES MTU IN OUT DROPS NAMESPACE", out)
}

// ShowBGP prints the sessions, and below what keeps those down that are not
// Established.
func ShowBGP(w io.Writer, rows []edge.SessionStatus, now time.Time) error {
	var out [][]string
	var why []string
	for _, s := range rows {
		state := string(s.State)
		up := "never"
		if !s.Since.IsZero() {
			up = duration(now.Sub(s.Since))
		}
		hold, md5 := "", "no"
		if s.State == bgp.StateEstablished {
			hold = fmt.Sprintf("%.0f/%.0f", s.Keepalive.Seconds(), s.Hold.Seconds())
		} else if s.Reason != "" {
			why = append(why, fmt.Sprintf("%s %s: %s", s.VRF, s.Peer, s.Reason))
		}
		if s.MD5 {
			md5 = "yes"
		}
		neighbor := s.Peer.String()
		if s.Carrier != "" {
			neighbor += " (EVPN)"
		}
		out = append(out, []string{s.VRF, neighbor, strconv.FormatUint(uint64(s.AS), 10), string(s.Side), state, up,
			hold, md5, strconv.Itoa(s.Accepted), strconv.Itoa(s.Refused), limitString(s), strconv.Itoa(s.Advertised), strconv.Itoa(s.Flaps)})
	}
	if err := table(w, "VRF NEIGHBOR AS SIDE STATE SINCE KEEP/HOLD MD5 ACCEPTED REFUSED LIMIT SENT FLAPS", out); err != nil {
		return err
	}
	for _, l := range why {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}

// limitString is the limit on a session's prefixes, with how much of it is used
// once that is near.
func limitString(s edge.SessionStatus) string {
	l := s.Prefixes
	switch {
	case l.Limit == 0:
		return ""
	case l.State == bgp.LimitNear:
		return fmt.Sprintf("%d (%d%%!)", l.Limit, 100*s.Received/l.Limit)
	case l.State == bgp.LimitReached:
		return fmt.Sprintf("%d (exceeded)", l.Limit)
	}
	return strconv.Itoa(l.Limit)
}

// origins are the letters of RFC 4271's codes, as every router prints them.
const origins = "ie?"

// ShowRoutes prints a line per path: * marks those in use.
func ShowRoutes(w io.Writer, rows []edge.RouteStatus) error {
	var out [][]string
	for _, r := range rows {
		source := r.Source
		if len(r.Paths) == 0 || source == "originated" {
			out = append(out, []string{"*", r.VRF, r.Prefix.String(), "", "", source, "", ""})
			source = "bgp" // what others say of a prefix of ours
		}
		for _, p := range r.Paths {
			out = append(out, []string{mark(p), r.VRF, r.Prefix.String(), hopString(p.NextHop), p.Interface, source,
				pathString(source, p), note(source, p)})
		}
	}
	return table(w, " VRF PREFIX NEXT-HOP INTERFACE SOURCE AS-PATH NOTE", out)
}

func mark(p edge.PathStatus) string {
	switch p.State {
	case bgp.PathBest, bgp.PathECMP:
		return "*"
	case bgp.PathRefused:
		return "x"
	default:
		return " "
	}
}

func hopString(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func pathString(source string, p edge.PathStatus) string {
	if source != "bgp" {
		return ""
	}
	var b strings.Builder
	for _, as := range p.ASPath {
		fmt.Fprintf(&b, "%d ", as)
	}
	if int(p.Origin) < len(origins) {
		b.WriteByte(origins[p.Origin])
	}
	return b.String()
}

func note(source string, p edge.PathStatus) string {
	var notes []string
	if source == "bgp" && p.Why != "" {
		notes = append(notes, p.Why)
	}
	if p.MAC != "" {
		notes = append(notes, "to "+p.MAC)
	}
	if p.Stale {
		notes = append(notes, "stale")
	}
	if !p.Resolved && p.NextHop.IsValid() && p.State != bgp.PathRefused {
		notes = append(notes, "next hop not resolved")
	}
	return strings.Join(notes, "; ")
}

// ShowARP prints the neighbor tables in Azure's columns.
func ShowARP(w io.Writer, rows []edge.ARPStatus) error {
	var out [][]string
	for _, a := range rows {
		out = append(out, []string{strconv.Itoa(a.Age), a.Property, a.Addr.String(), a.MAC, a.VRF, a.Interface})
	}
	return table(w, "Age InterfaceProperty IpAddress MacAddress VRF Interface", out)
}

// ShowPorts prints the ports.
func ShowPorts(w io.Writer, rows []edge.PortStatus) error {
	var out [][]string
	for _, p := range rows {
		mean, kind := "", p.Type
		if p.Mode != "" {
			kind += " (" + p.Mode + ")"
		}
		if p.RxFrames > 0 {
			mean = bytesOf(p.RxBytes / p.RxFrames)
		}
		out = append(out, []string{p.Name, p.Device, kind, p.Link, p.MAC, fmt.Sprintf("%#04x", p.TPID), count(p.RxFrames), bytesOf(p.RxBytes),
			mean, count(p.TxFrames), bytesOf(p.TxBytes), count(p.RxDropped), count(p.TxDrops), count(p.Errors)})
	}
	return table(w, "PORT DEVICE TYPE LINK MAC TPID RX-FRAMES RX MEAN-FRAME TX-FRAMES TX RX-DROPPED TX-DROPS ERRORS", out)
}

// ShowCounters prints the verdicts of each port's received frames; those that
// nobody got are left out unless all is set. What of the device's own did not leave
// stands below.
func ShowCounters(w io.Writer, rows []edge.PortStatus, all bool) error {
	var out [][]string
	for _, p := range rows {
		for _, v := range slices.Sorted(maps.Keys(p.Verdicts)) {
			if n := p.Verdicts[v]; n > 0 || all {
				out = append(out, []string{p.Name, v, count(n), fmt.Sprintf("%.1f%%", 100*float64(n)/float64(max(p.RxFrames, 1)))})
			}
		}
		out = append(out, []string{p.Name, "= received", count(p.RxFrames), ""})
		for _, v := range slices.Sorted(maps.Keys(p.OwnDrops)) {
			out = append(out, []string{p.Name, "own " + v, count(p.OwnDrops[v]), ""})
		}
	}
	return table(w, "PORT VERDICT FRAMES SHARE", out)
}

func number[T cmp.Ordered](n T) string {
	var zero T
	if n == zero {
		return ""
	}
	return fmt.Sprint(n)
}

func count(n uint64) string { return strconv.FormatUint(n, 10) }

// bytesOf writes octets with a decimal prefix, as interface rates are.
func bytesOf(n uint64) string {
	const units = "kMGTPE"
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1000, 0
	for f >= 999.95 && u < len(units)-1 {
		f, u = f/1000, u+1
	}
	return fmt.Sprintf("%.1f %cB", f, units[u])
}

// duration writes a time span as routers do: mm:ss, then 1h02m, then 3d04h.
func duration(d time.Duration) string {
	s := int(max(d, 0).Seconds())
	switch {
	case s < 3600:
		return fmt.Sprintf("%02d:%02d", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
	default:
		return fmt.Sprintf("%dd%02dh", s/86400, s%86400/3600)
	}
}
