package bfd

import (
	"strconv"
	"time"
)

// Status is what a session shows of itself.
type Status struct {
	State              State    `json:"state"`
	Diag               Diag     `json:"diagnostic"`
	RemoteState        State    `json:"remoteState"`
	RemoteDiag         Diag     `json:"remoteDiagnostic"`
	MyDiscriminator    uint32   `json:"myDiscriminator"`
	RemoteDiscr        uint32   `json:"remoteDiscriminator"`
	Auth               string   `json:"authentication"`
	DesiredMinTx       Millis   `json:"desiredMinTx"` // as we advertise it now
	RequiredMinRx      Millis   `json:"requiredMinRx"`
	DetectMult         uint8    `json:"detectMultiplier"`
	RemoteMinTx        Millis   `json:"remoteDesiredMinTx"`
	RemoteMinRx        Millis   `json:"remoteRequiredMinRx"`
	RemoteMinEchoRx    Millis   `json:"remoteRequiredMinEchoRx"`
	RemoteDetectMult   uint8    `json:"remoteDetectMultiplier"`
	RemoteControlIndep bool     `json:"remoteControlIndependent"`
	TxInterval         Millis   `json:"txInterval"` // agreed, before jitter
	RxInterval         Millis   `json:"rxInterval"`
	DetectionTime      Millis   `json:"detectionTime"`
	InState            Millis   `json:"inState"` // for how long
	Counters           Counters `json:"counters"`
	Discarded          []Count  `json:"discarded,omitempty"` // received and not taken
	Downs              []Count  `json:"downs,omitempty"`     // from Up
	Lateness           []Class  `json:"lateness,omitempty"`  // of periodic packets
	LatenessP99        Millis   `json:"latenessP99"`
	LatenessHistogram  Lateness `json:"-"`
}

// Millis is a duration that is milliseconds in JSON.
type Millis time.Duration

// MarshalJSON writes milliseconds, with the microseconds behind the point.
func (m Millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(time.Duration(m).Microseconds())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Millis) UnmarshalJSON(b []byte) error {
	ms, err := strconv.ParseFloat(string(b), 64)
	*m = Millis(ms * float64(time.Millisecond))
	return err
}

// Count is how often something happened.
type Count struct {
	Name  string `json:"name"`
	Count uint64 `json:"count"`
}

// Class is one class of a histogram.
type Class struct {
	Below Millis `json:"below"` // 0: no upper end
	Count uint64 `json:"count"`
}

// Status describes the session at now.
func (s *Session) Status(now time.Duration) Status {
	st := Status{
		State: s.state, Diag: s.diag, RemoteState: s.remoteState, RemoteDiag: s.remoteDiag,
		MyDiscriminator: s.cfg.MyDiscriminator, RemoteDiscr: s.remoteDiscr, Auth: s.cfg.Auth.Type.String(),
		DesiredMinTx: Millis(s.desiredMinTx), RequiredMinRx: Millis(s.requiredMinRx), DetectMult: s.cfg.DetectMult,
		RemoteMinTx: Millis(s.remoteMinTx), RemoteMinRx: Millis(s.remoteMinRx),
		RemoteMinEchoRx: Millis(s.remoteMinEchoRx), RemoteDetectMult: s.remoteDetectMult,
		RemoteControlIndep: s.remoteControlIndep,
		RxInterval:         Millis(s.rxInterval()), DetectionTime: Millis(s.detectionTime()),
		InState: Millis(now - s.changedAt), Counters: s.counters,
		LatenessP99: Millis(s.lateness.Quantile(0.99)),
	}
	if tx := s.TxInterval(); tx != Never {
		st.TxInterval = Millis(tx)
	}
	for r, n := range s.counters.Discarded {
		if n > 0 {
			st.Discarded = append(st.Discarded, Count{Reason(r).String(), n})
		}
	}
	for d, n := range s.counters.Downs {
		if n > 0 {
			st.Downs = append(st.Downs, Count{Diag(d).String(), n})
		}
	}
	st.Lateness, st.LatenessHistogram = s.lateness.Classes(), s.lateness
	return st
}
