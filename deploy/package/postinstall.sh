#!/bin/sh
# Creates the user and its directories. A running node keeps the old program until it is restarted: a rolling
# upgrade restarts one node at a time.
set -e
if ! getent passwd revoked >/dev/null; then
	if command -v systemd-sysusers >/dev/null; then
		systemd-sysusers revoked.conf
	else
		useradd --system --user-group --home-dir /var/lib/revoked --shell /usr/sbin/nologin revoked
	fi
fi
for dir in /etc/revoked /var/lib/revoked; do
	[ -d "$dir" ] || install -d -o revoked -g revoked -m 0700 "$dir"
done
[ ! -d /run/systemd/system ] || systemctl daemon-reload
