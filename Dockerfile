# Three stages, in this order on purpose: the builder of old Docker engines runs them from the top down to
# the target, so "local" needs nothing from a registry. BuildKit skips what the target does not need.
#
#   docker build -t revoked .                                      release: compiles here, pulls two images
#   scripts/dist.sh && docker build --target local -t revoked .    local: a binary built outside, pulls nothing
#
# Neither has a shell. The node keeps its data in /data; nothing else is written, so the root may be
# read-only.

FROM scratch AS local
COPY dist/rootfs/ /
COPY --chown=65532:65532 dist/owned/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/revoked"]
CMD ["server"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["/usr/local/bin/revoked", "healthcheck"]
EXPOSE 8443/tcp 7443/tcp 7946/tcp 7946/udp
# Where bulk registrations spill what a slow caller has not read yet.
ENV TMPDIR=/data

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=
RUN VERSION="$VERSION" scripts/dist.sh

FROM gcr.io/distroless/static-debian12:nonroot AS release
COPY --from=build /src/dist/rootfs/usr/local/bin/revoked /usr/local/bin/revoked
COPY --from=build --chown=65532:65532 /src/dist/owned/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/revoked"]
CMD ["server"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["/usr/local/bin/revoked", "healthcheck"]
EXPOSE 8443/tcp 7443/tcp 7946/tcp 7946/udp
# Where bulk registrations spill what a slow caller has not read yet.
ENV TMPDIR=/data
