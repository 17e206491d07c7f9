package config

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"msee/circuit"

	"go.yaml.in/yaml/v3"
)

// Load reads the file at path. The error is of type Faults if the file could be
// read but its content is refused.
func Load(path string) (*Device, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, MaxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return parse(path, data, outside{readSecret, func(name string) (io.ReadCloser, error) {
		if !filepath.IsAbs(name) {
			name = filepath.Join(filepath.Dir(path), name)
		}
		return openRegular(name)
	}})
}

// Parse compiles the content of a configuration file to the device it
// describes. filename is for messages only. The error is of type Faults and
// holds every fault of the file (of one that is wrong throughout, the first
// thousand). Secrets that the file has elsewhere are not read: their keys are
// empty in the device. A file that names others is refused: that is for Load.
func Parse(filename string, data []byte) (*Device, error) {
	return parse(filename, data, outside{})
}

// outside is what a configuration file refers to.
type outside struct {
	// secrets reads what an identifier stands for; nil: nobody shall.
	secrets func(identifier string) ([]byte, error)
	open    opener // of files that this one names; nil if none may be
}

func parse(filename string, data []byte, out outside) (*Device, error) {
	r := &reader{file: filename, places: make(map[string]place), outside: out}
	var d *Device
	if root := r.parseTree(data); root != nil {
		d = r.device(root)
	}
	if len(r.faults) > 0 {
		r.faults.sort()
		return nil, r.faults
	}
	return d, nil
}

// device reads a file of either kind; the result counts only without faults.
func (r *reader) device(root *yaml.Node) *Device {
	o, ok := r.object(item{root, ""})
	if !ok {
		return nil
	}
	edge, gateway := o.has("device"), o.has("virtualNetworkGateway")
	if edge == gateway {
		problem := "neither device nor virtualNetworkGateway is there"
		if edge {
			problem = "both device and virtualNetworkGateway are there"
		}
		r.faultAt(placeOf(root), "", "", problem, "device for an MSEE, virtualNetworkGateway for a gateway instance")
		return nil
	}
	if edge {
		f := r.edge(o)
		o.done()
		r.checkEdge(f)
		if len(r.faults) > 0 {
			return nil
		}
		if r.validate(f); len(r.faults) > 0 {
			return nil
		}
		return f.compile()
	}
	f := r.gateway(o)
	o.done()
	r.checkGateway(f)
	if len(r.faults) > 0 {
		return nil
	}
	return f.compile()
}

// portSpec is a port as configured.
type portSpec struct {
	Port
	Encapsulation encapsulation
	path          string
}

type encapsulation string

const (
	dot1Q encapsulation = "Dot1Q"
	qinQ  encapsulation = "QinQ"
)

// attachment is where on a port something hangs.
type attachment struct {
	Port   string
	VLANID uint16
}

// connectionSpec is a connection as configured.
type connectionSpec struct {
	circuit.Connection
	attachment
	vxlan    *vxlanSpec // instead of the attachment
	path     string
	bfd      BFD
	mtu      int
	public   bool             // to Microsoft's network, of a Microsoft peering
	fastPath circuit.FastPath // on an MSEE
}

// timers are the BGP timers of all of a device's sessions.
type timers struct{ keepalive, hold time.Duration }

// maxCPU is the highest number of a processor that a thread can be bound to.
const maxCPU = 1023

// ports reads the list of ports.
func (r *reader) ports(o *object) []portSpec {
	var ports []portSpec
	o.objects("ports", required, func(o *object) {
		p := portSpec{path: o.path}
		p.Name = value(o, "name", required, text, checkPortName)
		p.Device = value(o, "device", required, text, checkDevice)
		p.Type = word(o, "type", optional, "packet", "xdp", "tap")
		p.Encapsulation = word(o, "encapsulation", optional, dot1Q, qinQ)
		p.TPID = etherType(o)
		if cpu := int(value(o, "cpu", optional, number, between("the number of a processor", "", 0, maxCPU))); o.has("cpu") {
			p.CPU = &cpu
		}
		p.MACsec = r.macsec(o)
		p.CrossConnect = value(o, "crossConnect", optional, text, anyText)
		p.DirectGbps = int(value(o, "bandwidthInGbps", optional, number, circuit.CheckDirectBandwidth))
		p.Disabled = word(o, "adminState", optional, stateEnabled, stateDisabled) == stateDisabled
		if p.Disabled && p.Type == "tap" {
			r.fault(o.child("adminState"), stateDisabled, "a TAP has no link to switch off", "a port of another type")
		}
		ports = append(ports, p)
	})
	return ports
}

// etherType reads the outer tag's EtherType; 0x8100 without quotes is a number
// to YAML, and as good.
func etherType(o *object) uint16 {
	quoteNumber(o, "etherType")
	if word(o, "etherType", optional, "0x8100", "0x88a8") == "0x88a8" {
		return 0x88a8
	}
	return 0x8100
}

// quoteNumber puts the number under a key in quotes.
func quoteNumber(o *object, key string) {
	if n := o.values[key]; n != nil && n.Kind == yaml.ScalarNode && n.ShortTag() == "!!int" && usable(n) {
		quoted := *n
		quoted.Tag, quoted.Style = "!!str", yaml.DoubleQuotedStyle
		o.values[key] = &quoted
	}
}

// Bounds of an interface's IP MTU: what IPv6 needs at least (RFC 8200 §5), and what
// the kernel's side of an interface holds.
const (
	minMTU = 1280
	maxMTU = 9000
)

// mtu reads the IP MTU of the interface that o describes.
func (r *reader) mtu(o *object) int {
	if n := int(value(o, "mtu", optional, number, between("the length of a packet", "octets", minMTU, maxMTU))); n != 0 {
		return n
	}
	return defaultMTU
}

// connections reads the list of connections; those of an MSEE name their
// gateway.
func (r *reader) connections(o *object, need, namesGateway bool, base bfdKeys) []connectionSpec {
	var connections []connectionSpec
	o.objects("connections", need, func(o *object) {
		c := connectionSpec{path: o.path}
		c.Name = value(o, "name", required, text, checkName)
		c.Circuit = value(o, "circuit", required, text, checkName)
		if namesGateway {
			c.VirtualNetworkGateway = value(o, "virtualNetworkGateway", required, text, checkName)
			c.fastPath = r.fastPath(o)
		}
		c.RoutingWeight = int(value(o, "routingWeight", optional, number, circuit.CheckRoutingWeight))
		if o.has("vxlan") {
			c.vxlan = r.vxlan(o)
		} else {
			c.attachment.Port = value(o, "port", required, text, anyText)
			c.VLANID = uint16(value(o, "vlanId", required, number, circuit.CheckVLANID))
		}
		c.GatewaySubnet = value(o, "gatewaySubnet", required, prefix, circuit.CheckGatewaySubnet)
		c.GatewaySubnetIPv6 = value(o, "gatewaySubnetIpv6", optional, prefix, circuit.CheckSubnetIPv6)
		c.bfd, c.mtu = r.bfd(o, base), r.mtu(o)
		connections = append(connections, c)
	})
	return connections
}

// publicConnections reads the list of connections that join Microsoft peerings
// to Microsoft's network.
func (r *reader) publicConnections(o *object, base bfdKeys) []connectionSpec {
	var connections []connectionSpec
	o.objects("microsoftConnections", optional, func(o *object) {
		c := connectionSpec{path: o.path, public: true}
		c.Name = value(o, "name", required, text, checkName)
		c.Circuit = value(o, "circuit", required, text, checkName)
		c.attachment.Port = value(o, "port", required, text, anyText)
		c.VLANID = uint16(value(o, "vlanId", required, number, circuit.CheckVLANID))
		c.bfd, c.mtu = r.bfd(o, base), r.mtu(o)
		c.GatewaySubnet = value(o, "subnet", required, prefix, circuit.CheckGatewaySubnet)
		c.GatewaySubnetIPv6 = value(o, "subnetIpv6", optional, prefix, circuit.CheckSubnetIPv6)
		connections = append(connections, c)
	})
	return connections
}

// Azure's timers, and the lowest it agrees to; RFC 4271 §4.2 ends the range.
const (
	defaultKeepalive, minKeepalive = 60, 3
	defaultHold, minHold, maxHold  = 180, 10, 65535
)

// limits are the knobs of the limits on prefixes.
type limits struct {
	lifted  bool // maximumPrefixes is given
	maximum int  // instead of Azure's; 0 is none
	retry   time.Duration
}

// of returns the limit in force where Azure's is azure.
func (l limits) of(azure int) int {
	if l.lifted {
		return l.maximum
	}
	return azure
}

// defaultRetry is ours: Azure says only that the session comes back when there
// are fewer prefixes.
const defaultRetry = 60 * time.Second

// bgp reads the section bgp; only an MSEE has limits. A keepalive that is not
// given is 60 s, or a third of a hold time below 180 s (RFC 4271 §4.4).
func (r *reader) bgp(o *object, hasLimits bool) (timers, limits) {
	keepalive, hold := int64(0), int64(0)
	var l limits
	if hasLimits {
		l.retry = defaultRetry
	}
	if b, ok := o.section("bgp", optional, "timers"); ok {
		if hasLimits {
			l.lifted = b.has("maximumPrefixes")
			l.maximum = int(value(b, "maximumPrefixes", optional, number, checkMaximumPrefixes))
			if retry := value(b, "maximumPrefixesRetrySeconds", optional, number, checkRetry); retry != 0 {
				l.retry = time.Duration(retry) * time.Second
			}
		}
		hold = value(b, "holdSeconds", optional, number, checkHold)
		keepalive = value(b, "keepaliveSeconds", optional, number, checkKeepalive)
		b.done()
		if hold == 0 {
			hold = defaultHold
		}
		if keepalive > hold/3 {
			r.fault(b.child("keepaliveSeconds"), fmt.Sprint(keepalive), "more than a third of the hold time",
				fmt.Sprintf("at most %d with holdSeconds %d", hold/3, hold))
		}
	}
	if hold == 0 {
		hold = defaultHold
	}
	if keepalive == 0 {
		keepalive = min(defaultKeepalive, hold/3)
	}
	return timers{time.Duration(keepalive) * time.Second, time.Duration(hold) * time.Second}, l
}

func checkMaximumPrefixes(n int64) *circuit.Violation {
	if n < 0 || n > 10_000_000 {
		return &circuit.Violation{Problem: "not a number of prefixes", Want: "0 (no limit) to 10000000"}
	}
	return nil
}

func checkRetry(n int64) *circuit.Violation {
	if n < 1 || n > 86400 {
		return &circuit.Violation{Problem: "retry time out of range", Want: "1 to 86400 seconds"}
	}
	return nil
}

func checkHold(n int64) *circuit.Violation {
	if n < minHold || n > maxHold {
		return &circuit.Violation{Problem: "hold time out of range", Want: fmt.Sprintf("%d to %d seconds", minHold, maxHold)}
	}
	return nil
}

func checkKeepalive(n int64) *circuit.Violation {
	if n < minKeepalive || n > maxHold/3 {
		return &circuit.Violation{Problem: "keepalive time out of range", Want: fmt.Sprintf("%d to %d seconds", minKeepalive, maxHold/3)}
	}
	return nil
}

var (
	nameForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`)
	portForm   = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,4}$`)
	deviceForm = regexp.MustCompile(`^[!-~]{1,15}$`)
)

// checkName checks a name; they become parts of file names and arguments of
// commands.
func checkName(s string) *circuit.Violation {
	if !nameForm.MatchString(s) {
		return &circuit.Violation{Problem: "not a name", Want: "1 to 63 of A-Z, a-z, 0-9, _ and -, not beginning with -"}
	}
	return nil
}

// checkPortName keeps PORT.STAG.CTAG within the 15 characters of a Linux
// interface name, and away from the names that the kernel keeps for itself.
func checkPortName(s string) *circuit.Violation {
	if !portForm.MatchString(s) {
		return &circuit.Violation{Problem: "not a port name", Want: "1 to 5 of A-Z, a-z, 0-9, _ and -, not beginning with -"}
	}
	if s == "lo" || s == "all" {
		return &circuit.Violation{Problem: "reserved by the kernel", Want: "another name"}
	}
	return nil
}

// checkDevice checks the name of a Linux interface as the kernel does
// (dev_valid_name), without the % of its name templates.
func checkDevice(s string) *circuit.Violation {
	if !deviceForm.MatchString(s) || s == "." || s == ".." || strings.ContainsAny(s, "/:%") {
		return &circuit.Violation{Problem: "not an interface name", Want: "1 to 15 printable characters without / : %"}
	}
	return nil
}

// routerID reads a BGP identifier (RFC 6286 §2.1: any but 0; an address
// of the device, by convention).
func routerID(o *object) netip.Addr {
	var id netip.Addr
	value(o, "routerId", optional, text, func(s string) *circuit.Violation {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() || circuit.CheckUnicast(netip.PrefixFrom(a, 32)) != nil {
			return &circuit.Violation{Problem: "not a BGP identifier", Want: "an IPv4 unicast address"}
		}
		id = a
		return nil
	})
	return id
}

// anyText is for references: whether the name exists is checked later.
func anyText(s string) *circuit.Violation {
	if s == "" {
		return &circuit.Violation{Problem: "empty", Want: "a port's name"}
	}
	return nil
}

// findPort returns the port called name, nil if there is none.
func findPort(ports []portSpec, name string) *portSpec {
	i := slices.IndexFunc(ports, func(p portSpec) bool { return p.Name == name })
	if i < 0 {
		return nil
	}
	return &ports[i]
}
