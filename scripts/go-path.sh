#!/bin/sh
# Prints the directory of a Go that can build this module, for PATHs that do
# not have it (sudo's) or have one too old first (a distribution's).
# Best is a Go as new as go.mod asks for; a Go from 1.21 on will do, because it
# fetches the toolchain that go.mod names.
cd "$(dirname "$0")/.." || exit 1
need=$(sed -n 's/^go //p' go.mod)

# at_least A B: version A is B or newer.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# The home of the user who ran sudo, too: Go is often unpacked there.
sudo_home=$(getent passwd "${SUDO_USER:-}" | cut -d: -f6)
on_path=$(command -v go) && on_path=${on_path%/go}

fetches=
for dir in "$on_path" /usr/local/go/bin /usr/lib/go-*/bin /usr/lib/golang/bin /opt/go/bin /snap/bin \
	"$HOME"/go/bin "$HOME"/.local/go/bin "$HOME"/sdk/go*/bin \
	"$sudo_home"/go/bin "$sudo_home"/.local/go/bin "$sudo_home"/sdk/go*/bin; do
	[ -n "$dir" ] && [ -x "$dir/go" ] || continue
	# Asked in /, where no go.mod makes it switch toolchains.
	have=$(cd / && GOTOOLCHAIN=local "$dir/go" version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p')
	[ -n "$have" ] || continue
	if at_least "$have" "$need"; then
		echo "$dir"
		exit 0
	fi
	if [ -z "$fetches" ] && at_least "$have" 1.21; then fetches=$dir; fi
	seen="$seen $dir/go ($have)"
done
if [ -n "$fetches" ]; then
	echo "$fetches"
	exit 0
fi
cat >&2 <<TXT
msee needs Go $need or newer (or any Go from 1.21 on, which fetches that itself).
Found:${seen:- none}. Debian 12's golang package is too old: unpack the archive of
https://go.dev/dl/ into /usr/local, so that /usr/local/go/bin/go is there.
TXT
exit 1
