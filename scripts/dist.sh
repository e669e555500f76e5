#!/usr/bin/env bash
# Makes all that is in an image: dist/rootfs, with a static binary, and dist/owned, the folders that belong to
# the user of the node. VERSION names the version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022 # the user of the image reads it
root=dist/rootfs owned=dist/owned

rm -rf "$root" "$owned"
mkdir -p "$root"/{usr/local/bin,etc/ssl/certs} "$owned"/{data,certs}
# A fresh named volume takes the mode and the owner of the folder it is mounted on.
chmod 700 "$owned"/*

CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION:-}" -o "$root/usr/local/bin/revoked" ./cmd/revoked

printf 'root:x:0:0:root:/:/sbin/nologin\nrevoked:x:65532:65532:revoked:/data:/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nrevoked:x:65532:\n' > "$root/etc/group"
# For the command line tool against nodes with public certificates.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -f "$authorities" ]; then
	cp -L "$authorities" "$root/etc/ssl/certs/"
else
	echo "dist: no $authorities here: in the image the tool trusts only REVOKED_CACERT" >&2
fi
echo "dist: $root and $owned are complete"
