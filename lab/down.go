package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"msee/netns"
)

// Down ends a lab's processes and removes its namespaces and files, also of a
// lab that was never finished or whose state is lost. That there is nothing to
// remove is no error.
func Down(ctx context.Context, lab string) error {
	if err := CheckName(lab); err != nil {
		return err
	}
	if err := requireRoot(); err != nil {
		return err
	}
	unlock, err := lockLab(lab)
	if err != nil {
		return err
	}
	defer unlock()
	return remove(ctx, lab)
}

// DownAll takes down every lab there is.
func DownAll(ctx context.Context) error {
	var errs []error
	for _, lab := range Names() {
		errs = append(errs, Down(ctx, lab))
	}
	return errors.Join(errs...)
}

// remove does Down's work for the holder of the lock. The files go last and
// only if all else went, so that it can be tried again.
func remove(ctx context.Context, lab string) error {
	if err := clearLab(ctx, lab); err != nil {
		return fmt.Errorf("take down lab %s: %w", lab, err)
	}
	if err := os.Remove(labDir(lab)); err != nil {
		return fmt.Errorf("take down lab %s: %w", lab, err)
	}
	os.Remove(labsDir()) // both only if nothing else is in them
	os.Remove(RunDir)
	return nil
}

// clearLab removes all of a lab but its directory, which the lock is on.
func clearLab(ctx context.Context, lab string) error {
	if left := endProcesses(ctx, func() []process { return labProcesses(lab) }); len(left) > 0 {
		return errors.Join(fmt.Errorf("process %d does not end", left[0].PID), ctx.Err())
	}
	var errs []error
	for _, name := range labNamespaces(lab) {
		errs = append(errs, netns.Delete(name))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	instances, _ := filepath.Glob(filepath.Join(RunDir, lab+".*")) // the pattern is good
	files, _ := filepath.Glob(filepath.Join(labDir(lab), "*"))
	for _, path := range append(instances, files...) {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(errs...)
}

// labProcesses returns those that live in the lab's namespaces and those that
// were recorded.
func labProcesses(lab string) []process {
	out := residents(labNamespaces(lab))
	s, err := loadState(lab)
	if err != nil || s.BootID != bootID() {
		return out
	}
	for _, p := range s.Processes {
		known := slices.ContainsFunc(out, func(q process) bool { return q.PID == p.PID })
		if !known && p.alive() {
			out = append(out, p)
		}
	}
	return out
}
