# The images of walrust, one target each:
#
#   cli       walrust
#   sidecar   walrust and walrust-sidecar: sidecar, init container, Jobs
#   operator  walrust-operator
#
#   docker build --target sidecar -t registry.example/walrust-sidecar:0.1.0 .
#   docker buildx build --platform linux/amd64,linux/arm64 --target sidecar -t ... --push .
#
# Each runs as any user, with a read-only root and without a shell. BUILDER and BASE may be other images: BUILDER with
# Rust, a C compiler and cmake, BASE with glibc, libgcc and the certificates of public authorities.
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
# The lock file decides; .cargo/config.toml says how SQLite is compiled.
RUN cargo build --release --locked --workspace --bins && \
    mkdir -p /out && cp target/release/walrust target/release/walrust-sidecar target/release/walrust-operator /out/

FROM ${BASE} AS base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="walrust" \
      org.opencontainers.image.description="Continuous backup, restore and replication of SQLite to S3-compatible storage" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Numbers, so that Kubernetes can see that it is not root.
USER 65532:65532

FROM base AS cli
COPY --from=build --chmod=0755 /out/walrust /usr/local/bin/walrust
ENTRYPOINT ["/usr/local/bin/walrust"]

FROM base AS operator
COPY --from=build --chmod=0755 /out/walrust-operator /usr/local/bin/walrust-operator
ENTRYPOINT ["/usr/local/bin/walrust-operator"]

# The last target is what a build without --target makes.
FROM base AS sidecar
COPY --from=build --chmod=0755 /out/walrust /out/walrust-sidecar /usr/local/bin/
ENTRYPOINT ["/usr/local/bin/walrust-sidecar"]
