package edge

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"msee/config"
	"msee/macsec"
	"msee/macsec/mka"
)

// kayPair is two ports' key agreements with a cable for EAPOL between them.
func kayPair(t *testing.T, keys []config.MACsecKey) (a, b *kay) {
	t.Helper()
	station := func(last byte, priority uint8) *kay {
		c := &config.MACsec{Cipher: macsec.GCMAESXPN128, Confidentiality: macsec.Confidentiality0, KeyServerPriority: priority, Keys: keys}
		k, err := newKaY(c, macsec.NewClosed(macsec.NewSCI([6]byte{2, 0, 0, 0, 0, last}, sciPort)), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := k.secy.Configure(macsec.Config{SCI: k.secy.SCI(), ProtectFrames: true, ReplayProtect: true}); err != nil {
			t.Fatal(err)
		}
		return k
	}
	a, b = station(1, 1), station(2, 2)
	cable := func(to *kay) func([]byte) error {
		return func(frame []byte) error {
			select {
			case to.eapol <- append([]byte(nil), frame...):
			default: // as the worker does
			}
			return nil
		}
	}
	a.send, b.send = cable(b), cable(a)
	for _, k := range []*kay{a, b} {
		k.done.Go(k.run)
		t.Cleanup(func() {
			select {
			case <-k.stop:
			default:
				k.close()
			}
		})
	}
	return a, b
}

// passes reports whether a frame that one seals is opened by the other.
func passes(from, to *kay) bool {
	buf := make([]byte, 300)
	from.secy.LockTransmit()
	start, end, o := from.secy.Seal(buf, 100, 200)
	from.secy.UnlockTransmit()
	if o != macsec.OK {
		return false
	}
	to.secy.LockReceive()
	defer to.secy.UnlockReceive()
	_, _, o = to.secy.Open(buf, start, end)
	return o == macsec.OK
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never happened: " + what)
		}
	}
}

// TestKaYWithSecY: what two KaYs agree on is in their SecYs, through a new SAK,
// another CAK and other keys by reload; with other threads looking on; and
// nothing is left when one is closed.
func TestKaYWithSecY(t *testing.T) {
	key := func(name, ckn, cak string) config.MACsecKey {
		return config.MACsecKey{Name: name, CKN: config.Secret(ckn), CAK: config.Secret(strings.Repeat(cak, 16))}
	}
	first, second := key("primary", "one", "1"), key("fallback", "two", "2")
	second.Fallback = true
	a, b := kayPair(t, []config.MACsecKey{first, second})
	both := func() bool { return passes(a, b) && passes(b, a) }
	await(t, "a SAK", both)
	stop := make(chan struct{})
	defer close(stop)
	for range 2 {
		go func() { // as show and the port's worker do
			for {
				select {
				case <-stop:
					return
				default:
					passes(a, b)
					a.do(func() { a.packetNumbers(time.Now()); a.mka.Status(time.Now()) })
					a.secy.Status()
					time.Sleep(time.Millisecond)
				}
			}
		}()
	}
	sending := func(k *kay) (ki mka.KI) {
		k.do(func() {
			if l := k.mka.Status(time.Now()).Latest; l != nil && l.Tx {
				ki = l.KI
			}
		})
		return ki
	}
	change := func(what string, f func() ([]mka.Action, error)) {
		t.Helper()
		was := sending(a)
		await(t, what+", accepted", func() (ok bool) {
			a.do(func() {
				actions, err := f()
				a.obey(actions)
				ok = err == nil
			})
			return ok
		})
		await(t, what, func() bool { return sending(a) != was && sending(a) == sending(b) && both() })
	}
	change("a new SAK", func() ([]mka.Action, error) { return a.mka.Rekey(time.Now()) })
	change("another CAK", func() ([]mka.Action, error) { return a.mka.Promote(time.Now(), mka.CKN("two")) })

	c := *b.cfg
	c.Keys = []config.MACsecKey{second, key("next", "three", "3")}
	if !b.keeps(&c) || !both() {
		t.Error("a reload of keys interrupted what was agreed")
	}
	other := c
	other.Cipher = macsec.GCMAES256
	if b.keeps(&other) {
		t.Error("another cipher, and the key agreement goes on")
	}
	b.close()
	if passes(b, a) || passes(a, b) {
		t.Error("a frame passed after the end")
	}
	if b.do(func() {}) {
		t.Error("it still runs")
	}
}
