package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// maxSecret is the length of the longest secret, octets.
const maxSecret = 4096

// readSecret returns the content of a secret: a file that nobody but its owner
// may read, a variable of the environment, or a credential of systemd's
// (LoadCredential=). The errors tell nothing of the content.
func readSecret(id string) ([]byte, error) {
	kind, name, _ := strings.Cut(id, ":")
	switch kind {
	case "env":
		s, ok := os.LookupEnv(name)
		if !ok {
			return nil, fmt.Errorf("there is no variable %s in the environment", name)
		}
		return []byte(s), nil
	case "credential":
		dir := os.Getenv("CREDENTIALS_DIRECTORY")
		if dir == "" {
			return nil, errors.New("CREDENTIALS_DIRECTORY is not set: systemd sets it for units with LoadCredential=")
		}
		return readSecretFile(filepath.Join(dir, name))
	default:
		return readSecretFile(name)
	}
}

// readSecretFile reads a file after it has made sure, of the very file it has
// opened, that it is the owner's alone.
func readSecretFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO must not block us
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("it is not a file, but %s", st.Mode().Type())
	}
	if err := checkOwner(st); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err == nil && len(content) > maxSecret {
		err = errSecretTooLong
	}
	return content, err
}

// checkOwner wants a file of ours or of root's, with no permissions for others.
func checkOwner(st fs.FileInfo) error {
	if mode := st.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("others may read or change it (mode %04o): chmod 0400", mode)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && sys.Uid != 0 && int(sys.Uid) != os.Geteuid() {
		return fmt.Errorf("it belongs to user %d: want root or user %d", sys.Uid, os.Geteuid())
	}
	return nil
}
