# The image of Shipway: `serve` is the server, `runner` a runner. BASE is any Debian with Python 3.11 or newer.
ARG BASE=python:3.13-slim-bookworm
FROM ${BASE} AS build
LABEL shipway.image=build
WORKDIR /src
COPY image.lock ./
RUN python3 -m venv /opt/shipway && /opt/shipway/bin/pip install --quiet --no-cache-dir --require-hashes -r image.lock
COPY pyproject.toml README.md LICENSE ./
COPY ci ./ci
COPY web ./web
COPY runners ./runners
COPY plugins ./plugins
RUN /opt/shipway/bin/pip install --quiet --no-cache-dir --no-deps --no-build-isolation .

FROM ${BASE}
RUN command -v git >/dev/null && command -v ssh >/dev/null || { apt-get update -q && \
    apt-get install -q -y --no-install-recommends git openssh-client && rm -rf /var/lib/apt/lists/*; }
COPY --from=build /opt/shipway /opt/shipway
RUN useradd --system --uid 10001 --home-dir /data shipway && install -d -o shipway -m 0700 /data
ENV PATH=/opt/shipway/bin:$PATH SHIPWAY_DATA_DIR=/data SHIPWAY_HOST=0.0.0.0 SHIPWAY_RUNNER=off
USER shipway
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s \
    CMD ["/opt/shipway/bin/python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["shipway"]
CMD ["serve"]
