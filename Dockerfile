# The order of the three stages matters: old Docker engines run them from the top to the target, so that
# the target "local" needs no registry. BuildKit skips stages that the target does not need.
#
#   docker build -t revoked .                                      release: compiles in Docker, pulls two images
#   scripts/dist.sh && docker build --target local -t revoked .    local: copies a binary built outside, pulls nothing
#
# Neither image has a shell. The node writes only to /data and /tmp. If the root file system is
# read-only, mount a volume at /tmp: it holds results of bulk registrations that a slow caller has not read.

FROM scratch AS local
COPY dist/rootfs/ /
COPY --chown=65532:65532 dist/owned/ /
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/revoked"]
CMD ["server"]
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=3 CMD ["/usr/local/bin/revoked", "healthcheck"]
EXPOSE 8443/tcp 7443/tcp 7946/tcp 7946/udp

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
