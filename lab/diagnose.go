package lab

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"msee/lab/frr"
	"msee/netns"
)

// diagnose says why a session of an FRR node may not be Established: what bgpd
// says, and what the kernel below it knows and bgpd does not.
func diagnose(lab string, n *Node, s frr.Session) string {
	var why []string
	if s.Reason != "" {
		why = append(why, s.Reason)
	}
	_ = netns.Do(instance(lab, n.Name), func() error { // no namespace, no more to say
		if silent(s.Peer) {
			why = append(why, fmt.Sprintf("%s does not answer %s", s.Peer, resolution(s.Peer)))
		}
		if rejected := md5Rejected(); rejected > 0 {
			why = append(why, fmt.Sprintf("the kernel has rejected %d TCP segments for their MD5 signature (key)", rejected))
		}
		return nil
	})
	return orUnknown(strings.Join(why, "; "))
}

func resolution(addr netip.Addr) string {
	if addr.Is4() {
		return "ARP"
	}
	return "neighbour discovery"
}

// silent reports whether the kernel tries in vain to resolve addr.
func silent(addr netip.Addr) bool {
	neighs, err := netlink.NeighList(0, 0)
	if err != nil {
		return false
	}
	for _, n := range neighs {
		ip, ok := netip.AddrFromSlice(n.IP)
		if ok && ip.Unmap() == addr {
			return n.State&(netlink.NUD_FAILED|netlink.NUD_INCOMPLETE) != 0
		}
	}
	return false
}

// md5Rejected reads the namespace's counters of TCP segments with a wrong, a
// missing or an uncalled-for MD5 option (RFC 2385).
func md5Rejected() (sum int) {
	data, _ := os.ReadFile("/proc/thread-self/net/netstat") // none counted if not there
	lines := strings.Split(string(data), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := range min(len(names), len(values)) {
			switch names[j] {
			case "TCPMD5NotFound", "TCPMD5Unexpected", "TCPMD5Failure":
				v, _ := strconv.Atoi(values[j])
				sum += v
			}
		}
	}
	return sum
}
