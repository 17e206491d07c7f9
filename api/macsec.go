package api

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"msee/edge"
	"msee/macsec/mka"
)

// rotate answers POST /v1/macsec/rotate.
func rotate(e *edge.Edge, q url.Values) (any, error) {
	var ckn mka.CKN
	if s := q.Get("ckn"); s != "" {
		if err := ckn.UnmarshalText([]byte(s)); err != nil {
			return nil, fmt.Errorf("%w: CKN %q: want 2 to 64 hexadecimal digits", errBadRequest, s)
		}
	}
	if s := q.Get("sak"); s != "" && s != "only" {
		return nil, fmt.Errorf("%w: sak %q: want only, or nothing", errBadRequest, s)
	}
	return rows(e.RotateMACsec(q.Get("port"), ckn, q.Get("sak") == "only"))
}

// ShowMACsec prints a line per port with MACsec, below why one is not secured,
// and the counters that are not zero.
func ShowMACsec(w io.Writer, rows []edge.MACsecStatus) error {
	var out [][]string
	var why []string
	for _, s := range rows {
		an, pn := "", ""
		for _, sa := range s.SecY.TxSAs {
			if sa.InUse {
				an, pn = strconv.Itoa(int(sa.AN)), strconv.FormatUint(sa.NextPN, 10)
			}
		}
		server := ""
		switch {
		case s.Self:
			server = "self"
		case s.KeyServer != 0:
			server = s.KeyServer.String()
		}
		rekey := ""
		if s.RekeyIn > 0 {
			rekey = duration(s.RekeyIn)
		}
		if s.Reason != "" {
			why = append(why, s.Port+": "+s.Reason)
		}
		out = append(out, []string{s.Port, s.State, s.Mode, s.Cipher, s.CKN.String(), server, strconv.Itoa(s.Peers), an, pn, rekey,
			count(s.SecY.Tx.OutPktsEncrypted + s.SecY.Tx.OutPktsProtected), count(valid(&s)), count(s.OpenConfig["tx-pkts-dropped"]), count(s.OpenConfig["rx-pkts-dropped"])})
	}
	if err := table(w, "PORT STATE MODE CIPHER CKN KEY-SERVER PEERS AN NEXT-PN REKEY-IN SEALED OPENED TX-DROPPED RX-DROPPED", out); err != nil {
		return err
	}
	return printLines(w, why)
}

// valid counts the frames that were opened.
func valid(s *edge.MACsecStatus) (n uint64) {
	for _, sc := range s.SecY.RxSCs {
		n += sc.InPktsOK
	}
	return n
}

func printLines(w io.Writer, l []string) error {
	for _, s := range l {
		if _, err := fmt.Fprintln(w, s); err != nil {
			return err
		}
	}
	return nil
}

// ShowMKA prints the CAKs of each port with their peers, and the journals.
func ShowMKA(w io.Writer, rows []edge.MKAStatus, now time.Time) error {
	var out [][]string
	var rest []string
	for _, s := range rows {
		for _, p := range s.Participants {
			role := "standby"
			switch {
			case p.Principal:
				role = "principal"
			case p.Fallback:
				role = "fallback"
			}
			row := []string{s.Port, p.CKN.String(), p.Name, role, serverOf(&p), p.Member.MI.String(), strconv.FormatUint(uint64(p.Member.MN), 10)}
			if len(p.Peers) == 0 {
				out = append(out, append(row, "none", "", "", "", ""))
			}
			for _, q := range p.Peers {
				state := "potential"
				if q.Live {
					state = "live"
				}
				out = append(out, append(row[:len(row):len(row)], q.SCI.String(), state, duration(now.Sub(q.Since)),
					strconv.Itoa(int(q.Priority)), use(q.Rx, q.Tx)))
			}
		}
		for _, k := range s.Waiting {
			out = append(out, []string{s.Port, k.CKN.String(), k.Name, "from " + k.Start.Format(time.RFC3339), "", "", "", "", "", "", "", ""})
		}
		if s.Reason != "" {
			rest = append(rest, s.Port+": not secured: "+s.Reason)
		}
		for _, e := range s.Journal {
			line := fmt.Sprintf("%s %s %s", s.Port, e.At.Format("15:04:05.000"), e.String())
			if e.Count > 1 {
				line += fmt.Sprintf(" (%d times, the last at %s)", e.Count, e.Last.Format("15:04:05"))
			}
			rest = append(rest, line)
		}
	}
	if err := table(w, "PORT CKN KEY ROLE KEY-SERVER MEMBER MN PEER STATE SINCE PRIORITY SAK", out); err != nil {
		return err
	}
	return printLines(w, rest)
}

func serverOf(p *mka.ParticipantStatus) string {
	switch {
	case p.Server:
		return "self"
	case p.KeyServer != 0:
		return p.KeyServer.String()
	}
	return ""
}

// use says whether a peer receives and sends with the latest SAK.
func use(rx, tx bool) string {
	var s []string
	if rx {
		s = append(s, "rx")
	}
	if tx {
		s = append(s, "tx")
	}
	return strings.Join(s, "+")
}
