#!/usr/bin/env bash
# Fuzzes every target in the module, each for FUZZTIME, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."
FUZZTIME=${FUZZTIME:-30s}

# What root found or left half-written goes back to the checkout's owner.
[ "$(id -u)" != 0 ] || trap 'find . -path "*/testdata/*" -user 0 -exec chown -h --reference=. {} +' EXIT

mapfile -t targets < <(grep -rHoE --include='*_test.go' '^func Fuzz\w+' . | sed 's|/[^/]*:func | |' | sort)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz: no target found" >&2 && exit 1; }

# deadline_race: the output's only complaint is that time is up. Up to Go 1.26
# the coordinator may report the end of -fuzztime itself as a failure
# (go.dev/issue/75804); a real one names its input or the seed that failed.
deadline_race() {
	grep -qx ' *context deadline exceeded' <<<"$1" &&
		! grep -qE 'Failing input written|seed corpus|panic:|hung or terminated' <<<"$1"
}

failed=0
for target in "${targets[@]}"; do
	read -r dir name <<<"$target"
	if out=$(go test -run='^$' -fuzz="^$name\$" -fuzztime="$FUZZTIME" -fuzzminimizetime=20x -parallel=2 "$dir" 2>&1) || deadline_race "$out"; then
		echo "fuzz $dir $name: $(grep -oE 'execs: [0-9]+ ' <<<"$out" | tail -n 1)in $FUZZTIME"
	else
		printf '%s\nfuzz %s %s: FAILED\n' "$out" "$dir" "$name"
		failed=1
	fi
done
exit $failed
