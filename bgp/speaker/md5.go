package speaker

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// setMD5 sets the TCP-MD5 key for peer on a socket, or removes it if key is
// empty (RFC 2385; linux/tcp.h tcp_md5sig).
func setMD5(fd int, peer netip.Addr, key string) error {
	sig := unix.TCPMD5Sig{Keylen: uint16(len(key))}
	if len(key) > len(sig.Key) {
		return fmt.Errorf("TCP-MD5 key of %d octets: the kernel takes %d", len(key), len(sig.Key))
	}
	copy(sig.Key[:], key)
	if peer.Is4() {
		sig.Addr.Family = unix.AF_INET
		a := peer.As4() // sockaddr_in: port, address
		copy(sig.Addr.Data[2:], a[:])
	} else {
		sig.Addr.Family = unix.AF_INET6
		a := peer.As16() // sockaddr_in6: port, flow info, address
		copy(sig.Addr.Data[6:], a[:])
	}
	err := unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
	if key == "" && errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// md5Counts are the segments the kernel of a namespace dropped for TCP-MD5 and
// TTL security. It sends no error for them, so they are all there is to tell a
// wrong key by.
type md5Counts struct {
	notFound   uint64 // we have a key for the sender, the segment had no signature
	unexpected uint64 // the segment had a signature, we have no key
	failure    uint64 // the signature is wrong
	minTTL     uint64 // it has crossed a router, or was sent with less than 255
}

// md5Watch follows the counters of one namespace.
type md5Watch struct {
	mu      sync.Mutex
	file    *os.File // /proc/thread-self/net/netstat, which stays that of its namespace
	now     md5Counts
	before  md5Counts // as they were before the last of them rose
	read    time.Time // when now was read
	changed time.Time // when any of them last rose
}

// md5Fresh is how long a rejection explains why a session is down.
const md5Fresh = time.Minute

// open must run on a thread inside the namespace. It changes nothing if it is
// open.
func (w *md5Watch) open() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		return nil
	}
	f, err := os.Open("/proc/thread-self/net/netstat")
	if err != nil {
		return fmt.Errorf("open TCP counters: %w", err)
	}
	w.file, w.now, w.before, w.read, w.changed = f, md5Counts{}, md5Counts{}, time.Time{}, time.Time{}
	return nil
}

func (w *md5Watch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
}

// sample returns the counters, at most half a second old, as they are and as
// they were before one of them last rose, and whether that was within md5Fresh.
func (w *md5Watch) sample(now time.Time) (counts, before md5Counts, fresh bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.file != nil && now.Sub(w.read) > 500*time.Millisecond {
		buf := make([]byte, 16<<10)
		n, _ := w.file.ReadAt(buf, 0)
		c := parseNetstat(buf[:n])
		if c != w.now && !w.read.IsZero() {
			w.changed, w.before = now, w.now
		}
		w.now, w.read = c, now
	}
	return w.now, w.before, !w.changed.IsZero() && now.Sub(w.changed) < md5Fresh
}

// parseNetstat reads a line of names and a line of values that begin alike.
func parseNetstat(b []byte) md5Counts {
	var c md5Counts
	var names [][]byte
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) == 0 || string(fields[0]) != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i := 1; i < min(len(names), len(fields)); i++ {
			v, _ := strconv.ParseUint(string(fields[i]), 10, 64)
			switch string(names[i]) {
			case "TCPMD5NotFound":
				c.notFound = v
			case "TCPMD5Unexpected":
				c.unexpected = v
			case "TCPMD5Failure":
				c.failure = v
			case "TCPMinTTLDrop":
				c.minTTL = v
			}
		}
		break
	}
	return c
}

// explainMD5 says what the rejections since base mean for a session that is
// down and has or has no key, and TTL security or not; "" if nothing. Of several
// kinds the one that newest differs in from the sample before it counts. The
// counters are the namespace's.
func explainMD5(base, before, newest md5Counts, haveKey, ttlSecurity bool, othersDown int) string {
	var s string
	recent := false
	for _, r := range []struct {
		applies         bool
		base, was, is   uint64
		before, counter string
		after           string
	}{
		{haveKey, base.failure, before.failure, newest.failure, "TCP-MD5: the peer's segments fail our sharedKey", "TCPMD5Failure", ": the keys differ"},
		{haveKey, base.notFound, before.notFound, newest.notFound, "TCP-MD5: the peer sends no TCP-MD5", "TCPMD5NotFound", ", but sharedKey is set here"},
		{!haveKey, base.unexpected, before.unexpected, newest.unexpected, "TCP-MD5: the peer uses TCP-MD5", "TCPMD5Unexpected", ", but no sharedKey is set here"},
		{ttlSecurity, base.minTTL, before.minTTL, newest.minTTL, "TTL security: the peer's segments arrive with a TTL below 255", "TCPMinTTLDrop",
			": it is not directly connected, or has no TTL security for us (RFC 5082)"},
	} {
		if rose := r.is > r.was; r.applies && r.is > r.base && (s == "" || rose && !recent) {
			s, recent = fmt.Sprintf("%s (%s +%d)%s", r.before, r.counter, r.is-r.base, r.after), rose
		}
	}
	if s != "" && othersDown > 0 {
		s += fmt.Sprintf(" [the namespace's count; %d more of its sessions are down]", othersDown)
	}
	return s
}
