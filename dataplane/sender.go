package dataplane

import (
	"sync"

	"msee/dataplane/port"
)

// senders are a thread's ways out, one for each port however many workers of the
// thread use it: a sender has buffers in the kernel, and with one for each worker
// and port they would grow with the square of the ports.
type senders struct {
	mu   sync.Mutex // workers begin on the thread and end on the control side
	open map[port.Port]*sharedSender
}

// sharedSender is a sender that several workers hold. Only their thread sends.
type sharedSender struct {
	port.Sender
	holds int
}

// hold returns the sender on a port, for a worker that will release it.
func (s *senders) hold(p port.Port) (port.Sender, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := s.open[p]
	if shared == nil {
		sender, err := p.NewSender()
		if err != nil {
			return nil, err
		}
		shared = &sharedSender{Sender: sender}
		if s.open == nil {
			s.open = map[port.Port]*sharedSender{}
		}
		s.open[p] = shared
	}
	shared.holds++
	return shared.Sender, nil
}

// release takes hold back; the last one closes the sender.
func (s *senders) release(p port.Port) {
	s.mu.Lock()
	defer s.mu.Unlock()
	shared := s.open[p]
	if shared.holds--; shared.holds == 0 {
		delete(s.open, p)
		shared.Close()
	}
}
