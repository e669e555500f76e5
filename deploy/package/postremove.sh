#!/bin/sh
# The data, the settings, the keys and the user stay, also after a purge: a node that comes back with its data
# directory is the same member.
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
