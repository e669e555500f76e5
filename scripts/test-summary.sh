#!/usr/bin/env bash
# Copies the output of `go test -v`, and fails if a test was skipped under CI=true.
set -uo pipefail
skipped=0
while IFS= read -r line; do
	printf '%s\n' "$line"
	case "$line" in *"--- SKIP"*) skipped=$((skipped + 1)) ;; esac
done
if [ "${CI:-}" = true ] && [ "$skipped" -gt 0 ]; then
	printf '%d tests were skipped; CI=true allows no skipped test\n' "$skipped" >&2
	exit 1
fi
