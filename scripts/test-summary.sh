#!/usr/bin/env bash
# Passes the output of `go test -v` on, and fails when a test was skipped although CI=true.
set -uo pipefail
skipped=0
while IFS= read -r line; do
	printf '%s\n' "$line"
	case "$line" in *"--- SKIP"*) skipped=$((skipped + 1)) ;; esac
done
if [ "${CI:-}" = true ] && [ "$skipped" -gt 0 ]; then
	printf '%d tests were skipped; with CI=true none may be\n' "$skipped" >&2
	exit 1
fi
