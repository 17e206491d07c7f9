package macsec

import (
	"crypto/aes"
	"crypto/cipher"
	"strconv"
	"testing"
)

// The benchmarks that performance is followed by: a frame with that many octets
// of user data, SCI in the tag, encrypted with GCM-AES-128, beside the bare
// AEAD on the same octets, in place, with as much additional data.

func BenchmarkSeal(b *testing.B) { benchmark(b, benchmarkSeal, benchmarkAEADSeal) }
func BenchmarkOpen(b *testing.B) { benchmark(b, benchmarkOpen, benchmarkAEADOpen) }

func benchmark(b *testing.B, ours, bare func(*testing.B, int)) {
	for _, n := range []int{64, 1450} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.Run("macsec", func(b *testing.B) { ours(b, n) })
			b.Run("aead", func(b *testing.B) { bare(b, n) })
		})
	}
}

func benchmarkSeal(b *testing.B, n int) {
	l := newLink(b, testSAK(GCMAES128, Confidentiality0, 1), Config{IncludeSCI: true}, 1)
	buf, start, end := room(testFrame(n + macsLen))
	b.SetBytes(int64(n))
	for b.Loop() {
		if _, _, o := l.tx.Seal(buf, start, end); o != OK {
			b.Fatal(o)
		}
	}
}

func benchmarkAEADSeal(b *testing.B, n int) {
	aead := benchAEAD(b)
	nonce, buf := make([]byte, 12), make([]byte, 28+n+ICVLen)
	b.SetBytes(int64(n))
	for b.Loop() {
		nonce[11]++
		aead.Seal(buf[28:28], nonce, buf[28:28+n], buf[:28])
	}
}

// openBatch is how many frames are sealed, untimed, to be opened then.
const openBatch = 1024

func benchmarkOpen(b *testing.B, n int) {
	l := newLink(b, testSAK(GCMAES128, Confidentiality0, 1), Config{IncludeSCI: true, ReplayProtect: true}, 1)
	var bufs [openBatch][]byte
	var starts, ends [openBatch]int
	for i := range bufs {
		bufs[i], starts[i], ends[i] = room(testFrame(n + macsLen))
	}
	b.SetBytes(int64(n))
	b.ResetTimer()
	for left := b.N; left > 0; left -= openBatch {
		b.StopTimer()
		batch := bufs[:min(left, openBatch)]
		for i, buf := range batch {
			starts[i], ends[i], _ = l.tx.Seal(buf, starts[i], ends[i])
		}
		b.StartTimer()
		for i, buf := range batch {
			var o Outcome
			if starts[i], ends[i], o = l.rx.Open(buf, starts[i], ends[i]); o != OK {
				b.Fatal(o)
			}
		}
	}
}

func benchmarkAEADOpen(b *testing.B, n int) {
	aead := benchAEAD(b)
	nonce := make([]byte, 12)
	var bufs [openBatch][]byte
	for i := range bufs {
		bufs[i] = make([]byte, 28+n+ICVLen)
	}
	b.SetBytes(int64(n))
	b.ResetTimer()
	for left := b.N; left > 0; left -= openBatch {
		b.StopTimer()
		batch := bufs[:min(left, openBatch)]
		for _, buf := range batch {
			aead.Seal(buf[28:28], nonce, buf[28:28+n], buf[:28])
		}
		b.StartTimer()
		for _, buf := range batch {
			if _, err := aead.Open(buf[28:28], nonce, buf[28:], buf[:28]); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func benchAEAD(b *testing.B) cipher.AEAD {
	block, err := aes.NewCipher(make([]byte, 16))
	must(b, err)
	aead, err := cipher.NewGCM(block)
	must(b, err)
	return aead
}
