#!/usr/bin/env bash
# Runs the built binary as a new user does: dev, the printed curl lines, the command line tool, Ctrl-C.
# Usage: smoke.sh BINARY
set -euo pipefail
binary=$(realpath "$1")
dir=$(mktemp -d)
port=$((20000 + RANDOM % 5000))
pid=
cleanup() {
	[ -z "$pid" ] || kill -INT "$pid" 2>/dev/null || true
	[ -z "$pid" ] || wait "$pid" 2>/dev/null || true
	rm -rf "$dir"
}
trap cleanup EXIT
fail() { printf 'smoke: %s\n' "$*" >&2; cat "$dir/out" >&2; exit 1; }

# Job control gives the program its own process group, so that SIGINT acts like Ctrl-C.
set -m
"$binary" dev --dir "$dir/dev" --api-port "$port" >"$dir/out" 2>&1 &
pid=$!
set +m
for _ in $(seq 1000); do
	grep -q '^Stop with Ctrl-C' "$dir/out" && break
	kill -0 "$pid" 2>/dev/null || fail "dev exited early"
	sleep 0.1
done
[ -f "$dir/dev/dev.json" ] || fail "dev was not ready within 100 s"

# A registered token and a JWT, one after the other: active, revoked, inactive.
answers=$(grep -E '^(curl|JWT=)' "$dir/out" | sh)
printf '%s\n' "$answers"
[ "$(grep -c '"active":true' <<<"$answers")" = 2 ] || fail "the tokens were not active before"
[ "$(grep -c '^{}$' <<<"$answers")" = 2 ] || fail "the revocations did not return {}"
[ "$(grep -A 1 '^{}$' <<<"$answers" | grep -c '^{"active":false}$')" = 2 ] ||
	fail "the tokens were not inactive afterwards"

eval "$(grep '^export' "$dir/out")"
"$binary" members || fail "members"
"$binary" status >/dev/null || fail "status"
printf 'no-such-token' | "$binary" token introspect - >/dev/null && fail "introspect of an unknown token exited with 0" || [ $? = 2 ] || fail "introspect of an unknown token did not exit with 2"
"$binary" no-such-command >/dev/null 2>&1 && fail "an unknown command exited with 0" || [ $? = 64 ] || fail "an unknown command did not exit with 64"

kill -INT "$pid"
wait "$pid" || fail "dev exited with $? after Ctrl-C"
pid=
if pgrep -f "$dir/dev/" >/dev/null; then fail "Ctrl-C left processes behind"; fi
echo "smoke: ok"
