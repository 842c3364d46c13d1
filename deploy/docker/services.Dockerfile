# Our programs as static binaries on an empty image: nothing in it but the program, no shell, no libc, no certificates
# (the roots that TLS trusts are compiled in). One target per image: backend, ml-api, devchain.
#
#   docker build -f deploy/docker/services.Dockerfile --target backend .
#
# The builder must have the Rust release of rust-toolchain.toml, rustup and apt.
ARG BUILDER=rust:1.95.0-slim-bookworm

FROM ${BUILDER} AS source
RUN apt-get update \
    && apt-get install -y --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add x86_64-unknown-linux-musl
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY crates crates
COPY deploy/anvil/artifacts.json deploy/anvil/

# One cargo call per program: in a common one each would be built with the other's features too, and ml-api would
# carry the chain pool.
FROM source AS build-backend
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --target x86_64-unknown-linux-musl -p backend \
    && install -D -t /out target/x86_64-unknown-linux-musl/release/backend

FROM source AS build-ml-api
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --target x86_64-unknown-linux-musl -p ml-api \
    && install -D -t /out target/x86_64-unknown-linux-musl/release/ml-api

FROM source AS build-devchain
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --target x86_64-unknown-linux-musl -p testkit --features devchain --bin devchain \
    && install -D -t /out target/x86_64-unknown-linux-musl/release/devchain

FROM scratch AS backend
COPY --from=build-backend /out/backend /backend
USER 65532:65532
EXPOSE 3001
HEALTHCHECK --interval=3s --timeout=5s --start-period=10s --retries=3 CMD ["/backend", "healthcheck"]
ENTRYPOINT ["/backend"]

FROM scratch AS ml-api
COPY --from=build-ml-api /out/ml-api /ml-api
USER 65532:65532
EXPOSE 3002
HEALTHCHECK --interval=3s --timeout=5s --start-period=10s --retries=3 CMD ["/ml-api", "healthcheck"]
ENTRYPOINT ["/ml-api"]

# Development only: deploys the development contract on a fresh chain and seeds it, then ends.
FROM scratch AS devchain
COPY --from=build-devchain /out/devchain /devchain
USER 65532:65532
ENTRYPOINT ["/devchain"]
