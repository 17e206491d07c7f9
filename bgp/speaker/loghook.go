package speaker

import (
	"fmt"
	"sync/atomic"

	"github.com/osrg/gobgp/v3/pkg/log"
	packet "github.com/osrg/gobgp/v3/pkg/packet/bgp"
)

// logHook is the logger of one BgpServer: it turns the few lines that say why a
// session moves into calls of the current watch and drops the rest. GoBGP's
// public events carry the new state but no reason. Tests fail when these lines
// change.
type logHook struct {
	watch *atomic.Pointer[watch]
}

var _ log.Logger = (*logHook)(nil)

func (h *logHook) Debug(msg string, f log.Fields) {
	if msg != "state changed" {
		return
	}
	if w := h.watch.Load(); w != nil {
		to, _ := f["new"].(string)
		w.stateChanged(to, fmt.Sprint(f["reason"]))
	}
}

func (h *logHook) Warn(msg string, f log.Fields) {
	w := h.watch.Load()
	if w == nil {
		return
	}
	switch msg {
	case "sent notification":
		w.noteSent(notificationOf(f), detail(f))
	case "hold timer expired":
		w.note("hold timer expired: nothing heard from the peer")
	}
}

// notificationOf reads both shapes GoBGP logs: fields, or the error to be sent.
func notificationOf(f log.Fields) notification {
	if e, ok := f["Data"].(*packet.MessageError); ok {
		return notification{code: e.TypeCode, subcode: e.SubTypeCode, data: e.Data}
	}
	var n notification
	n.code, _ = f["Code"].(uint8)
	n.subcode, _ = f["Subcode"].(uint8)
	if text, ok := f["Communicated-Reason"].(string); ok && len(text) < 256 {
		n.data = append([]byte{byte(len(text))}, text...)
	}
	return n
}

func detail(f log.Fields) string {
	if e, ok := f["Data"].(*packet.MessageError); ok {
		return e.Message
	}
	return ""
}

func (h *logHook) Error(string, log.Fields) {}
func (h *logHook) Info(string, log.Fields)  {}

// Panic and Fatal are GoBGP's assertions: the speaker dies and the edge starts
// a new one.
func (h *logHook) Panic(msg string, f log.Fields) { panic(fmt.Sprint("GoBGP: ", msg, " ", f)) }
func (h *logHook) Fatal(msg string, f log.Fields) { panic(fmt.Sprint("GoBGP: ", msg, " ", f)) }

func (h *logHook) SetLevel(log.LogLevel) {}

// GetLevel keeps GoBGP from composing its expensive debug lines.
func (h *logHook) GetLevel() log.LogLevel { return log.WarnLevel }
