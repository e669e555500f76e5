#!/usr/bin/env bash
# Installs what the tests need beyond Go: Debian packages (as root) and staticcheck into the folder $1.
set -euo pipefail
bin=$1
mkdir -p "$bin"

# gcc: the race detector. iproute2, nftables: hosts of the system tests' own. strace: disk faults.
# The rest are the third-party clients and gateways that the system tests drive.
packages=(gcc libc6-dev curl iproute2 nftables strace util-linux procps
	nginx-light apache2 libapache2-mod-oauth2 python3-authlib python3-requests ruby ruby-rack-oauth2)

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >/dev/null
	# Services must not start: the tests run their own, on loopback.
	printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null || { rm -f /usr/sbin/policy-rc.d; exit 1; }
	rm -f /usr/sbin/policy-rc.d
fi

command -v staticcheck >/dev/null && staticcheck -version | grep -q 2026 || GOBIN="$bin" go install honnef.co/go/tools/cmd/staticcheck@v0.8.2
