package bfd

import (
	"math/bits"
	"time"
)

// Lateness counts how long after their time things were done, in classes that
// double: class n holds less than 2^n × 16 µs, the last one all the rest.
type Lateness [latenessClasses]uint64

const (
	latenessClasses = 16 // the last begins at 262 ms
	latenessUnit    = 16 * time.Microsecond
)

func (l *Lateness) add(d time.Duration) {
	n := bits.Len64(uint64(max(d, 0) / latenessUnit))
	l[min(n, latenessClasses-1)]++
}

// Merge adds what another has counted.
func (l *Lateness) Merge(o *Lateness) {
	for n := range l {
		l[n] += o[n]
	}
}

// Bound is the upper end of a class; that of the last is not one.
func (l *Lateness) Bound(class int) time.Duration { return latenessUnit << class }

// Quantile returns the upper end of the class that has the qth part of all.
func (l *Lateness) Quantile(q float64) time.Duration {
	var all, sum uint64
	for _, n := range l {
		all += n
	}
	for class, n := range l {
		if sum += n; n > 0 && float64(sum) >= q*float64(all) {
			return l.Bound(class)
		}
	}
	return 0
}

// Classes lists the classes that hold something.
func (l *Lateness) Classes() []Class {
	var all []Class
	for class, n := range l {
		if n == 0 {
			continue
		}
		c := Class{Count: n}
		if class < latenessClasses-1 {
			c.Below = Millis(l.Bound(class))
		}
		all = append(all, c)
	}
	return all
}
