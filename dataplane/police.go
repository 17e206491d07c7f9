package dataplane

import "time"

// tokenBucket limits a rate: burst at once, rate per second thereafter. It
// belongs to one worker.
type tokenBucket struct {
	rate, burst float64 // tokens per second, tokens
	tokens      float64
	last        time.Duration // since the worker's epoch
}

func newTokenBucket(rate, burst float64) tokenBucket {
	return tokenBucket{rate: rate, burst: burst, tokens: burst}
}

// take takes a token at time now and reports whether there was one.
func (b *tokenBucket) take(now time.Duration) bool {
	if elapsed := now - b.last; elapsed > 0 {
		b.tokens = min(b.burst, b.tokens+elapsed.Seconds()*b.rate)
		b.last = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
