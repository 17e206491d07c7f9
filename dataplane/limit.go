package dataplane

import (
	"sync/atomic"
	"time"
)

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

// budget is what the subinterfaces of a thread, or of the device, may have of
// something together: their own limits may add up to more than it can bear. The
// lower half of it is kept for those who have asked for little of late, so that a
// few that flood do not keep the others from their own. Workers share it without a
// lock.
//
// Like a Policer it is one number: when it will be whole again if nobody takes
// anything (GCRA, ITU-T I.371).
type budget struct {
	cost  time.Duration // of a token
	whole time.Duration // what it takes to fill an empty one
	full  atomic.Int64  // when it will be, time since the epoch
}

// init makes b one of perSecond tokens a second, and of as many at once.
func (b *budget) init(perSecond int) {
	b.cost, b.whole = time.Second/time.Duration(perSecond), time.Second
}

// share is what one subinterface may have of a budget. It belongs to one worker.
type share struct {
	most tokenBucket
	sure tokenBucket // what counts as little
}

// newShare returns a share of so many tokens a second, and half as many at once.
func newShare(most, sure float64) share {
	return share{newTokenBucket(most, most/2), newTokenBucket(sure, sure)}
}

// take takes a token of the share, at time now, and reports whether there was one.
func (b *budget) take(s *share, now time.Duration) bool {
	if !s.most.take(now) {
		return false
	}
	room := b.whole / 2
	if s.sure.take(now) {
		room = b.whole
	}
	for {
		full := b.full.Load()
		next := max(time.Duration(full), now) + b.cost
		if next-now > room {
			return false
		}
		if b.full.CompareAndSwap(full, int64(next)) {
			return true
		}
	}
}
