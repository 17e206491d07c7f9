package dataplane

import (
	"testing"

	"msee/dataplane/port"
)

// countedPort counts the senders that are open on it.
type countedPort struct {
	port.Port
	opened, open int
}

type countedSender struct{ p *countedPort }

func (p *countedPort) NewSender() (port.Sender, error) {
	p.opened, p.open = p.opened+1, p.open+1
	return countedSender{p}, nil
}

func (countedSender) Send(frames []*port.Frame) (int, error) { return len(frames), nil }
func (s countedSender) Close() error                         { s.p.open--; return nil }

// TestSendersAreTheThreads: workers of a thread share a sender, the last one closes
// it, and one that comes later opens another.
func TestSendersAreTheThreads(t *testing.T) {
	p := &countedPort{}
	var one, other senders
	hold := func(of *senders) {
		if _, err := of.hold(p); err != nil {
			t.Fatal(err)
		}
	}
	hold(&one)
	hold(&one)
	hold(&other)
	if p.opened != 2 || p.open != 2 {
		t.Errorf("%d senders opened for two threads", p.opened)
	}
	one.release(p)
	if p.open != 2 {
		t.Error("closed while a worker holds it")
	}
	one.release(p)
	other.release(p)
	if p.open != 0 || len(one.open) != 0 {
		t.Errorf("%d senders left open", p.open)
	}
	if hold(&one); p.opened != 3 || p.open != 1 {
		t.Errorf("%d opened, %d open after all were closed", p.opened, p.open)
	}
}
