#!/usr/bin/env bash
# Makes dist/rootfs: all that is in an image, with a static binary. VERSION names the version.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=dist/rootfs

rm -rf "$root"
mkdir -p "$root"/{usr/local/bin,etc/ssl/certs,data,certs}
# A fresh named volume takes the mode and the owner of the folder it is mounted on.
chmod 700 "$root/data" "$root/certs"

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
echo "dist: $root is complete"
