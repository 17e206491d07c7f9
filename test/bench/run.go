package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"time"
)

// bench is the state of one command.
type bench struct {
	options
	scratch  string // directory that is removed at the end
	progress io.Writer
	where    machine
	earlier  []result          // to add to
	bed      *bed              // the one that is up; nil if none is
	binaries map[string]string // test binaries by package
}

// sample is one run, as it was kept.
type sample struct {
	Round   int                `json:"round"`
	Side    string             `json:"side"`
	Value   float64            `json:"value"`
	Foreign float64            `json:"foreignCores"` // that others, or the hypervisor, used meanwhile
	Noisy   bool               `json:"noisy"`        // that was too much, in every attempt
	Tries   int                `json:"tries"`
	Extra   map[string]float64 `json:"extra,omitempty"`
	side    side
}

// quietShare is how much of the machine others may use during a run.
const quietShare = 0.05

// run measures the rows. A row that fails does not keep the next from being
// measured; what was measured is written after each.
func (b *bench) run(ctx context.Context, selected []*row) (err error) {
	// The context may have ended: the bed goes all the same.
	defer func() { err = errors.Join(err, b.leaveBed(context.WithoutCancel(ctx))) }()
	results := b.earlier
	var failed []error
	for i, r := range selected {
		fmt.Fprintf(b.progress, "[%d/%d] %s, %s against %s\n", i+1, len(selected), r.name, r.unit, r.baseline)
		samples, err := b.row(ctx, r)
		if ctx.Err() != nil {
			failed = append(failed, errors.New("interrupted"))
			break
		}
		if err != nil {
			err = fmt.Errorf("measure %s: %w", r.name, err)
			fmt.Fprintln(b.progress, err)
			failed = append(failed, err)
			continue
		}
		this := summarise(r, samples, b.where)
		this.When, this.Seconds = time.Now().Round(time.Second), b.seconds
		results = merge(results, []result{this})
		if err := writeJSON(b.out, results); err != nil {
			return err
		}
	}
	printTable(b.progress, results)
	if ctx.Err() == nil { // of what was interrupted there is only -out
		failed = append(failed, writeJSON(b.out, results), writePlot(b.plot, results), writeDocs(b.docs, results))
	}
	return errors.Join(failed...)
}

// row measures all rounds of one row.
func (b *bench) row(ctx context.Context, r *row) ([]sample, error) {
	if err := b.enterBed(ctx, r.bed); err != nil {
		return nil, err
	}
	var samples []sample
	for round := 1; round <= b.rounds; round++ {
		fmt.Fprintf(b.progress, "  round %d/%d", round, b.rounds)
		for _, s := range r.sides() {
			kept, err := b.quietRun(ctx, r, s)
			if err != nil {
				fmt.Fprintln(b.progress)
				return nil, fmt.Errorf("%s: %w", r.label(s), err)
			}
			kept.Round = round
			samples = append(samples, kept)
			fmt.Fprintf(b.progress, "  %s %s%s", r.label(s), number(kept.Value), noiseMark(kept))
		}
		fmt.Fprintln(b.progress)
	}
	return samples, nil
}

func noiseMark(s sample) string {
	if !s.Noisy {
		return ""
	}
	return fmt.Sprintf(" (noisy: others used %.2f cores)", s.Foreign)
}

// quietRun makes a run, again if others disturbed it, and keeps the quietest.
func (b *bench) quietRun(ctx context.Context, r *row, s side) (sample, error) {
	if b.bed != nil {
		if err := b.bed.use(ctx, r.forwarder(s)); err != nil {
			return sample{}, err
		}
	}
	limit := quietShare * float64(runtime.NumCPU())
	var best sample
	for try := 1; ; try++ {
		before, err := takeCPU()
		if err != nil {
			return sample{}, err
		}
		traffic := s
		if r.opponent == otherMSEE {
			traffic = subject
		}
		got, err := r.measure(ctx, b, traffic)
		if err != nil {
			return sample{}, err
		}
		after, err := takeCPU()
		if err != nil {
			return sample{}, err
		}
		this := sample{Side: r.label(s), Value: got.value, Extra: got.extra, side: s}
		this.Foreign = before.foreignUntil(after)
		this.Noisy = this.Foreign > limit
		if try == 1 || this.Foreign < best.Foreign {
			best = this
		}
		best.Tries = try
		if !best.Noisy || try > b.retries {
			return best, nil
		}
		select {
		case <-ctx.Done():
			return sample{}, ctx.Err()
		case <-time.After(time.Duration(try) * time.Second): // others may be done then
		}
	}
}

// number writes three digits or more, without an exponent.
func number(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}
