package api

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"msee/bfd"
	"msee/edge"
)

// ShowBFD prints the sessions: what both sides want and what is agreed, and
// below why those are down that were up.
func ShowBFD(w io.Writer, rows []edge.BFDStatus) error {
	var out [][]string
	var why []string
	for _, s := range rows {
		pair := ""
		if s.Pair {
			pair = "yes"
		}
		in := duration(time.Duration(s.InState))
		state := s.State.String()
		if s.State != bfd.Up && s.Diag != bfd.DiagNone {
			why = append(why, fmt.Sprintf("%s %s: %v; the peer is %v (%v)", s.VRF, s.Peer, s.Diag, s.RemoteState, s.RemoteDiag))
		}
		var downs uint64
		for _, d := range s.Downs {
			downs += d.Count
		}
		out = append(out, []string{s.VRF, s.Peer.String(), s.Interface, state, in,
			fmt.Sprintf("%08x/%08x", s.MyDiscriminator, s.RemoteDiscr),
			millis(s.TxInterval), millis(s.RxInterval), millis(s.DetectionTime),
			fmt.Sprintf("%s×%d", millis(s.RequiredMinRx), s.DetectMult), fmt.Sprintf("%s×%d", millis(s.RemoteMinTx), s.RemoteDetectMult),
			count(s.Counters.Rx), count(s.Counters.Tx), count(downs), lastDown(s), millis(s.LatenessP99), pair})
	}
	if err := table(w, "VRF NEIGHBOR INTERFACE STATE FOR MY/YOUR-DISCR TX RX DETECT OURS THEIRS RX-PKTS TX-PKTS DOWNS LAST-DOWN LATE-P99 PAIR", out); err != nil {
		return err
	}
	for _, l := range why {
		if _, err := fmt.Fprintln(w, l); err != nil {
			return err
		}
	}
	return nil
}

// lastDown is the code of what took a session from Up last.
func lastDown(s edge.BFDStatus) string {
	if len(s.Downs) == 0 {
		return ""
	}
	return s.Counters.LastDown.String()
}

// millis writes milliseconds without a unit below a second's worth of digits.
func millis(m bfd.Millis) string {
	if m == 0 {
		return ""
	}
	return strconv.FormatFloat(float64(time.Duration(m).Microseconds())/1000, 'f', -1, 64) + "ms"
}
