package edge

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"msee/config"
	"msee/macsec"
	"msee/macsec/mka"
)

// kay is the key agreement of a port: it runs the KaY on a goroutine of its own
// and gives its SAKs to the port's SecY.
type kay struct {
	secy  *macsec.SecY
	log   *slog.Logger
	send  func(frame []byte) error
	eapol chan []byte // EAPOL frames from the port's worker
	calls chan func() // to be run by the goroutine
	stop  chan struct{}
	done  sync.WaitGroup

	// The goroutine's own.
	cfg       *config.MACsec
	mka       *mka.KaY
	receivers [4][]macsec.SCI // of the SAK of each AN
	sending   uint8           // AN
	rate      pnRate
}

const (
	// eapolQueue holds the MKPDUs of a large group until the KaY has time.
	eapolQueue = 64
	// pnEvery is the pace of looking at packet numbers. At 148 Mpps, 100 GbE's
	// most, a quarter of those of 32 bits lasts for 7 s.
	pnEvery = time.Second
)

// setKaY brings a port's key agreement to its configuration, after setMACsec.
// Keys change under way; all else begins anew.
func (e *Edge) setKaY(p *portState) error {
	c := p.cfg.MACsec
	wanted := c != nil && c.Static == nil
	if k := p.kay; k != nil {
		if wanted && k.secy == p.secy && k.keeps(c) {
			return nil
		}
		k.close()
		p.kay = nil
	}
	if !wanted {
		return nil
	}
	k, err := newKaY(c, p.secy, e.log.With("port", p.cfg.Name))
	if err != nil {
		return err
	}
	index := p.index
	k.send = func(frame []byte) error { return e.engine.SendFrame(index, frame) }
	k.done.Go(k.run)
	p.kay = k
	return nil
}

func newKaY(c *config.MACsec, secy *macsec.SecY, log *slog.Logger) (*kay, error) {
	cfg := mka.Config{
		SCI: secy.SCI(), Priority: c.KeyServerPriority, Suites: []macsec.CipherSuite{c.Cipher},
		Confidentiality: c.Confidentiality, RekeyEvery: c.Rekey, Rand: rand.Reader,
	}
	keys := mkaKeys(c)
	faults := []error{cfg.Check()}
	for i := range keys {
		faults = append(faults, keys[i].Check())
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return &kay{secy: secy, log: log, cfg: c, mka: mka.New(cfg, keys),
		eapol: make(chan []byte, eapolQueue), calls: make(chan func()), stop: make(chan struct{})}, nil
}

func mkaKeys(c *config.MACsec) (keys []mka.Key) {
	for _, k := range c.Keys {
		keys = append(keys, mka.Key{Name: k.Name, CKN: k.CKN.Bytes(), CAK: k.CAK.Bytes(), Fallback: k.Fallback, Start: k.Start})
	}
	return keys
}

// keeps reports whether the key agreement can go on with c, and if so gives it
// the keys of c.
func (k *kay) keeps(c *config.MACsec) bool {
	was, is := *k.cfg, *c
	was.Keys, is.Keys = nil, nil
	was.ReplayWindow, is.ReplayWindow, was.SendSCI, is.SendSCI = 0, 0, false, false // the SecY's alone
	if !reflect.DeepEqual(was, is) {
		return false
	}
	k.do(func() {
		if !reflect.DeepEqual(k.cfg.Keys, c.Keys) {
			k.obey(k.mka.SetKeys(time.Now(), mkaKeys(c)))
		}
		k.cfg = c
	})
	return true
}

// close ends the key agreement and wipes the SecY's keys: nothing passes from
// then on. There may be nothing to close.
func (k *kay) close() {
	if k == nil {
		return
	}
	close(k.stop)
	k.done.Wait()
	k.secy.Close()
}

// run is the goroutine of the KaY.
func (k *kay) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	look := time.NewTicker(pnEvery)
	defer look.Stop()
	for {
		select {
		case <-k.stop:
			return
		case frame := <-k.eapol:
			k.obey(k.mka.Receive(time.Now(), frame))
		case <-timer.C:
			k.obey(k.mka.Advance(time.Now()))
		case <-look.C:
			k.packetNumbers(time.Now())
		case call := <-k.calls:
			call()
		}
		next := time.Hour
		if at := k.mka.Next(); !at.IsZero() {
			next = time.Until(at)
		}
		timer.Reset(next)
	}
}

// do runs f on the KaY's goroutine and waits for it. It reports false if that
// has ended.
func (k *kay) do(f func()) bool {
	done := make(chan struct{})
	select {
	case k.calls <- func() { defer close(done); f() }:
		<-done
		return true
	case <-k.stop:
		return false
	}
}

// obey does what the KaY wants done, in its order.
func (k *kay) obey(actions []mka.Action) {
	for _, a := range actions {
		var err error
		switch a := a.(type) {
		case mka.Send:
			err = k.send(a.Frame)
		case mka.Install:
			err = k.install(a)
		case mka.Transmit:
			err = k.secy.EnableTxSA(a.AN)
			k.sending, k.rate = a.AN, pnRate{}
		case mka.Remove:
			k.secy.RemoveTxSA(a.AN)
			for _, sci := range k.receivers[a.AN&3] {
				k.secy.RemoveRxSA(sci, a.AN)
			}
			k.receivers[a.AN&3] = nil
		case mka.RemovePeer:
			k.secy.RemoveRxSC(a.SCI)
		case mka.Log:
			k.tell(&a.Event)
		}
		if err != nil {
			k.log.Error("MACsec", "err", err)
		}
	}
}

// install has a SAK received, and made ready to send with.
func (k *kay) install(a mka.Install) error {
	key := macsec.SAK{Suite: a.Suite, Confidentiality: a.Confidentiality, Key: a.Key, Salt: a.Salt}
	defer clear(a.Key)
	var errs []error
	k.receivers[a.AN&3] = nil
	for _, r := range a.Receivers {
		errs = append(errs, k.secy.CreateRxSC(r.SCI), k.secy.InstallRxSA(r.SCI, a.AN, key, r.SSCI, 1), k.secy.EnableRxSA(r.SCI, a.AN))
		k.receivers[a.AN&3] = append(k.receivers[a.AN&3], r.SCI)
	}
	errs = append(errs, k.secy.InstallTxSA(a.AN, key, a.SSCI, 1))
	return errors.Join(errs...)
}

func (k *kay) tell(e *mka.Event) {
	level := slog.LevelInfo
	if e.Kind.Trouble() {
		level = slog.LevelWarn
	}
	k.log.Log(context.Background(), level, "MKA "+e.String(), "key", e.Key)
}

// packetNumbers tells the KaY how far the packet numbers are.
func (k *kay) packetNumbers(now time.Time) {
	for an := range uint8(4) {
		next, err := k.secy.TxNextPN(an)
		if err != nil {
			continue
		}
		if an == k.sending {
			k.rate.saw(next, now)
		}
		received, lowest := uint64(0), uint64(0)
		for i, sci := range k.receivers[an] {
			n, low, err := k.secy.RxPN(sci, an)
			if err != nil {
				continue
			}
			received = max(received, n)
			if i == 0 || low < lowest {
				lowest = low
			}
		}
		k.obey(k.mka.PacketNumbers(now, an, next, received, lowest))
	}
}

// pnRate is how fast packet numbers are used up, smoothed over ten looks.
type pnRate struct {
	next      uint64
	at        time.Time
	perSecond float64
}

func (r *pnRate) saw(next uint64, now time.Time) {
	if seconds := now.Sub(r.at).Seconds(); !r.at.IsZero() && seconds > 0 && next >= r.next {
		rate := float64(next-r.next) / seconds
		r.perSecond += (rate - r.perSecond) / 10
	}
	r.next, r.at = next, now
}
