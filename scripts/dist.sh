#!/usr/bin/env bash
# Creates the contents of an image: dist/rootfs with a static binary, and dist/owned with the directories of
# the user that runs the node. The variable VERSION sets the version of the binary.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022 # the user of the image must be able to read the files
root=dist/rootfs owned=dist/owned

rm -rf "$root" "$owned"
mkdir -p "$root"/{usr/local/bin,etc/ssl/certs} "$owned"/{data,certs,tmp}
# A new named volume gets the mode and the owner of the directory on which it is mounted.
chmod 700 "$owned"/*

# Without -funcalign, the linker pads functions to 32 bytes on amd64. That makes the binary 0.3 MB larger. Some
# packages run only at the start, for a backup or after an error: without inlining, they are 0.3 MB smaller.
cold=()
for package in github.com/{minio/minio-go,spf13,cockroachdb/errors,getsentry,miekg} go.yaml.in; do
	cold+=("-gcflags=$package/...=-l")
done
CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -funcalign=16 -X main.version=${VERSION:-}" \
	"${cold[@]}" -o "$root/usr/local/bin/revoked" ./cmd/revoked

printf 'root:x:0:0:root:/:/sbin/nologin\nrevoked:x:65532:65532:revoked:/data:/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nrevoked:x:65532:\n' > "$root/etc/group"
# The command line tool needs the public CAs for nodes with public certificates.
authorities=/etc/ssl/certs/ca-certificates.crt
if [ -f "$authorities" ]; then
	cp -L "$authorities" "$root/etc/ssl/certs/"
else
	echo "dist: $authorities does not exist: in the image the tool trusts only REVOKED_CACERT" >&2
fi
echo "dist: $root and $owned are complete"
