package edge

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	"msee/config"
	"msee/macsec"
)

// packetNumbers remembers, for every static key that was ever sent with, from
// where on its packet numbers are unused: a number that is used twice with a key
// gives GCM's authentication key away. Numbers are reserved in blocks, and a
// block is on disk before the first of it is used. So a crash costs numbers, and
// repeats none.
type packetNumbers struct {
	file string
	bad  error             // why there are none
	free map[string]uint64 // by fingerprint of the key
}

// reservation is what a SecY may use of a key's packet numbers.
type reservation struct {
	key  string // fingerprint; "" for none
	last uint64
	ivs  ivs // of the SA that has it
}

// ivs is what an SA's IVs are made of beside its key, the SCI and the packet
// number.
type ivs struct {
	cipher macsec.CipherSuite
	salt   macsec.Salt
	ssci   uint32
}

const (
	// pnBlock lasts for some seconds at a million frames per second, and there
	// are 256 of them to the 32-bit numbers of a key, one for each crash.
	pnBlock = 1 << 24
	// maxPacketNumberFile bounds what is read, octets: ten thousand keys.
	maxPacketNumberFile = 1 << 20
)

var errNoPacketNumbers = errors.New("static keys need a directory for state (--state), where their packet numbers outlive the process: with a key none may be used twice")

// load reads the file. One that cannot be read is no new beginning: static keys
// are refused then.
func (n *packetNumbers) load(file string) {
	n.file, n.free = file, map[string]uint64{}
	switch err := n.read(); {
	case file == "":
		n.bad = errNoPacketNumbers
	case errors.Is(err, fs.ErrNotExist):
		n.bad = os.MkdirAll(filepath.Dir(file), 0o755)
	case err != nil:
		n.bad = fmt.Errorf("what packet numbers the static keys have used cannot be read; with new keys, remove the file: %w", err)
	}
}

func (n *packetNumbers) read() error {
	f, err := os.Open(n.file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = json.NewDecoder(io.LimitReader(f, maxPacketNumberFile)).Decode(&n.free)
	if err == nil && n.free == nil {
		err = errors.New("null")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", n.file, err)
	}
	return nil
}

// fingerprint tells keys apart. Salt and SSCI do not count: under another salt a
// key begins no life anew.
func fingerprint(key config.Secret) string {
	sum := sha256.Sum256(append([]byte("msee packet numbers of "), key...))
	return hex.EncodeToString(sum[:])
}

// reserve notes down a block of a key's packet numbers, from the first unused one
// on and not below first, and returns it.
func (n *packetNumbers) reserve(key string, first, most uint64) (from uint64, r reservation, err error) {
	if n.bad != nil {
		return 0, r, n.bad
	}
	most = min(most, math.MaxUint64-1) // there is one behind the last
	from = max(first, n.free[key])
	if from > most {
		return 0, r, fmt.Errorf("the key's packet numbers, %d, are used up: want another key", most)
	}
	r = reservation{key: key, last: from + min(pnBlock-1, most-from)}
	return from, r, n.set(key, r.last+1)
}

// extend notes down another block behind r. It reports false if somebody else has
// those numbers.
func (n *packetNumbers) extend(r *reservation, most uint64) (bool, error) {
	most = min(most, math.MaxUint64-1)
	if n.free[r.key] != r.last+1 || r.last >= most {
		return false, nil
	}
	last := r.last + min(pnBlock, most-r.last)
	if err := n.set(r.key, last+1); err != nil {
		return false, err
	}
	r.last = last
	return true, nil
}

// giveBack notes down that of r's numbers those from next on were not used.
func (n *packetNumbers) giveBack(r reservation, next uint64) error {
	if r.key == "" || next == 0 || next > r.last || n.free[r.key] != r.last+1 {
		return nil
	}
	return n.set(r.key, next)
}

// set writes the file: it holds the old number or the new, and if set returns nil
// the new one, whatever happens to the machine.
func (n *packetNumbers) set(key string, free uint64) (err error) {
	old, was := n.free[key]
	n.free[key] = free
	defer func() {
		if err == nil {
			return
		}
		err = fmt.Errorf("save packet numbers: %w", err)
		if n.free[key] = old; !was {
			delete(n.free, key)
		}
	}()
	b, err := json.MarshalIndent(n.free, "", "  ")
	if err != nil {
		return err
	}
	next := n.file + ".new"
	if err := writeSynced(next, append(b, '\n')); err != nil {
		return err
	}
	if err := os.Rename(next, n.file); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(n.file))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// writeSynced writes a file and has it on the disk.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}
