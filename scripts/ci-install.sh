#!/usr/bin/env bash
# Installs the requirements of the tests beyond Go: Debian packages (as root), and linters
# and packagers in the directory $1.
set -euo pipefail
bin=$1
mkdir -p "$bin"

# The race detector needs gcc. The system tests need iproute2 and nftables for network namespaces, strace
# for disk faults, Chromium for the console, and the other packages as third-party clients and gateways.
packages=(gcc libc6-dev curl openssl iproute2 nftables strace util-linux procps chromium
	nginx-light libnginx-mod-http-js haproxy caddy apache2 libapache2-mod-oauth2 libapache2-mod-auth-openidc
	dovecot-imapd prosody lua-unbound python3-authlib python3-requests ruby ruby-rack-oauth2)

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
	export DEBIAN_FRONTEND=noninteractive
	apt-get update -q >/dev/null
	# Do not start services: the tests run their own, on loopback.
	printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	apt-get install -q -y --no-install-recommends "${missing[@]}" >/dev/null || { rm -f /usr/sbin/policy-rc.d; exit 1; }
	rm -f /usr/sbin/policy-rc.d
fi

# promtool checks the alerts and the dashboards. Its package also has a server, a service and web pages, which the
# tests do not need: extract only the program.
if ! command -v promtool >/dev/null && [ ! -x "$bin/promtool" ]; then
	package=$(mktemp -d)
	download() { (cd "$package" && apt-get -o APT::Sandbox::User=root download -q prometheus >/dev/null); }
	download || { apt-get update -q >/dev/null && download; }
	dpkg-deb --fsys-tarfile "$package"/prometheus_*.deb | tar -xO ./usr/bin/promtool >"$bin/promtool"
	chmod +x "$bin/promtool"
	rm -rf "$package"
fi

for tool in \
	honnef.co/go/tools/cmd/staticcheck@v0.8.2 \
	github.com/kisielk/errcheck@v1.30.0 \
	github.com/golangci/misspell/cmd/misspell@v0.8.0 \
	golang.org/x/vuln/cmd/govulncheck@v1.9.0 \
	github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0 \
	github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0; do
	GOBIN="$bin" go install "$tool"
done
