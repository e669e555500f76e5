#!/bin/sh
# Stops the node before its program is removed, but not for an upgrade. deb passes "remove", rpm passes 0.
set -e
case "${1:-}" in
remove | 0) [ ! -d /run/systemd/system ] || systemctl disable --now revoked.service || true ;;
esac
