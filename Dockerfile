# Two images: `vorrang`, the gateway (the last stage, the default), and `load`, what simulates a provider and puts load on it.
#
#     docker build -t vorrang .
#     docker run -p 127.0.0.1:4000:4000 -v "$PWD/config.yaml:/etc/vorrang/config.yaml:ro" vorrang --config /etc/vorrang/config.yaml
#
# Nothing here needs BuildKit: Docker's classic builder and Compose v1 build it, too.

# What compiles. Where the binaries are there already (BINARIES), anything that can copy will do.
ARG TOOLCHAIN=rust:1-slim-bookworm
FROM $TOOLCHAIN AS build
LABEL vorrang.stage=build
WORKDIR /source
COPY . .
# A directory inside the context with `vorrang`, `vorrang-load` and `ca-certificates.crt`; empty: they are compiled here.
ARG BINARIES=
RUN mkdir /out \
 && if [ -n "$BINARIES" ]; then \
        cp "$BINARIES"/* /out/; \
    else \
        cargo build --release --locked --package vorrang --package vorrang-loadtest \
     && cp target/release/vorrang target/release/vorrang-load /etc/ssl/certs/ca-certificates.crt /out/; \
    fi

FROM debian:bookworm-slim AS runtime
# Upstreams are called by HTTPS.
COPY --from=build /out/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY deploy/healthy /usr/local/bin/healthy
# No user of that number exists, and none has to: nothing is written.
USER 10001:10001

FROM runtime AS load
COPY --from=build /out/vorrang-load /usr/local/bin/vorrang-load
# Ends the build, not the container, where the binary does not fit the image's libraries.
RUN ["vorrang-load", "--version"]
ENTRYPOINT ["vorrang-load"]

FROM runtime AS vorrang
COPY --from=build /out/vorrang /usr/local/bin/vorrang
RUN ["vorrang", "--version"]
EXPOSE 4000
# Ready: its state is in Redis. Containers are started with the defaults of HOST and PORT.
HEALTHCHECK --interval=2s --timeout=2s --start-period=10s --retries=3 CMD ["healthy", "4000", "/health/readiness"]
ENTRYPOINT ["vorrang"]
