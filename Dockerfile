# Two images from one build: `clawback` (the default) and `stripe-sim`. Plain Dockerfile syntax, so that any builder can read it.

FROM rust:1.95-slim-trixie AS builder
WORKDIR /build
ENV CARGO_INCREMENTAL=0

# First the dependencies alone, with empty crates in place of ours: this layer stays until a Cargo.toml or Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY queues/Cargo.toml queues/
COPY outbox/Cargo.toml outbox/
COPY migrations/Cargo.toml migrations/
COPY tests/stripe-sim/Cargo.toml tests/stripe-sim/
RUN for crate in . queues outbox migrations tests/stripe-sim; do \
      mkdir -p $crate/src $crate/benches $crate/examples && touch $crate/src/lib.rs && echo 'fn main() {}' >$crate/src/main.rs; \
      for kind in bench example; do \
        for name in $(sed -n "/^\[\[$kind\]\]/,/^$/s/^name = \"\(.*\)\"/\1/p" $crate/Cargo.toml); do \
          case $kind in bench) touch $crate/benches/$name.rs ;; example) touch $crate/examples/$name.rs ;; esac; \
        done; \
      done; \
    done \
 && cargo build --release --locked -p clawback -p stripe-sim \
 && find . -path ./target -prune -o -name '*.rs' -print | xargs rm

# Then ours. Cargo goes by time stamps, and these files may be older than the empty ones.
COPY . .
RUN find . -path ./target -prune -o -name '*.rs' -print | xargs touch \
 && cargo build --release --locked -p clawback -p stripe-sim --bins

FROM debian:trixie-slim AS runtime
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --user-group --no-create-home clawback
USER 10001:10001

FROM runtime AS stripe-sim
COPY --from=builder /build/target/release/stripe-sim /usr/local/bin/
EXPOSE 12111
ENTRYPOINT ["stripe-sim"]
CMD ["--listen", "0.0.0.0:12111"]

FROM runtime AS clawback
COPY --from=builder /build/target/release/clawback /usr/local/bin/
ENV HTTP_ADDR=0.0.0.0:8080
EXPOSE 8080
ENTRYPOINT ["clawback"]
CMD ["run"]
