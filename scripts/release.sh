#!/usr/bin/env bash
# Builds the files of a release in the empty or missing directory $1: an archive for each platform, a deb
# and an rpm package for Linux, a bill of materials (CycloneDX) for each binary, and SHA256SUMS. The same commit
# gives the same bytes, with the same Go version.
#
# It needs git, GNU tar, nfpm and cyclonedx-gomod; scripts/ci-install.sh names their versions. VERSION is the
# version of the release: a git tag without its "v", or "0.0.0-COMMIT" if there is none. PLATFORMS lists the
# platforms to build.
set -euo pipefail
out=$(realpath -m "${1:?usage: scripts/release.sh DIRECTORY}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
umask 022
export TZ=UTC LC_ALL=C CGO_ENABLED=0 GOFLAGS=-trimpath

[ -z "$(ls -A "$out" 2>/dev/null)" ] || { echo "release: $out is not empty" >&2; exit 1; }
mkdir -p "$out"
commit=$(git rev-parse --short=12 HEAD)
tag=$(git describe --tags --exact-match --match 'v*' 2>/dev/null) || tag=v0.0.0-$commit
version=${VERSION:-${tag#v}}
# Files get the time of the commit, so that they do not depend on the time of the build.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
[ -z "$(git status --porcelain)" ] || echo "release: the tree has changes that are not committed" >&2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# licenses OS ARCH copies the license files of the modules in a binary: most licenses require that.
licenses() {
	local module dir
	go version -m "$work/$1_$2/revoked" | awk '$1 == "dep" { print $2 "@" $3 }' | while read -r module; do
		dir=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
		mkdir -p "$work/$1_$2/licenses/${module%@*}"
		find "$dir" -maxdepth 1 -type f \( -iname 'license*' -o -iname 'copying*' -o -iname 'notice*' \) \
			-exec cp -t "$work/$1_$2/licenses/${module%@*}" {} +
		chmod -R u+w "$work/$1_$2/licenses"
	done
}

# archive OS ARCH packs the binary with the license, the documentation and the files of deploy.
archive() {
	local name=revoked_${version}_$1_$2
	mkdir -p "$work/$name"
	cp -r "$work/$1_$2/revoked" "$work/$1_$2/licenses" LICENSE NOTICE README.md CHANGELOG.md SECURITY.md \
		docs deploy "$work/$name/"
	tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --format=gnu \
		-C "$work" -cf - "$name" | gzip -n -9 > "$out/$name.tar.gz"
}

# packages ARCH makes the deb and the rpm. The unit of the manual runs /usr/local/bin/revoked; a package
# installs into /usr/bin.
packages() {
	local root=$work/package_$1 built=$work/linux_$1
	mkdir -p "$root/doc"
	cp "$built/revoked" deploy/package/sysusers.conf "$root/"
	sed 's|/usr/local/bin/revoked|/usr/bin/revoked|' deploy/systemd/revoked.service > "$root/revoked.service"
	cp -r "$built/licenses" README.md CHANGELOG.md NOTICE docs deploy/revoked.sample.yml "$root/doc/"
	cp LICENSE "$root/doc/copyright"
	chmod -R u=rwX,go=rX "$root"
	find "$root" -exec touch -d "@$SOURCE_DATE_EPOCH" {} +
	for format in deb rpm; do
		PACKAGE_ARCH=$1 PACKAGE_VERSION=$version PACKAGE_ROOT=$root \
			nfpm package --config deploy/package/nfpm.yml --packager "$format" --target "$out/" >/dev/null
	done
}

for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/arm64}; do
	os=${platform%/*} arch=${platform#*/}
	GOOS=$os GOARCH=$arch go build -buildvcs=true -ldflags "-s -w -X main.version=$version" \
		-o "$work/${os}_$arch/revoked" ./cmd/revoked
	licenses "$os" "$arch"
	archive "$os" "$arch"
	cyclonedx-gomod bin -json -noserial -notimestamp -version "$version" \
		-output "$out/revoked_${version}_${os}_$arch.cdx.json" "$work/${os}_$arch/revoked" 2>/dev/null
	[ "$os" != linux ] || packages "$arch"
done
(cd "$out" && sha256sum -- * > "$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
cat "$out/SHA256SUMS"
