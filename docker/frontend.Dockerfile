# The frontend alone: no GPU, no Triton, no root. Context: the repository's root.
#   docker build -f docker/frontend.Dockerfile -t inflight-frontend .
FROM python:3.12.12-slim-bookworm AS packages
COPY docker/frontend.lock /tmp/frontend.lock
RUN python -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --no-cache-dir --no-deps --require-hashes -r /tmp/frontend.lock

FROM python:3.12.12-slim-bookworm
# The numbers of triton.Dockerfile's user: both write to one home folder.
RUN groupadd --gid 1000 inflight \
 && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /var/lib/inflight inflight \
 && install -d -o inflight -g inflight /var/lib/inflight
COPY --from=packages /opt/venv /opt/venv
COPY triton_models /opt/inflight/triton_models
COPY build_engines /opt/inflight/build_engines
COPY frontend /opt/inflight/frontend
WORKDIR /opt/inflight
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFLIGHT_HOME=/var/lib/inflight \
    INFLIGHT_LOG_FORMAT=json
USER 1000:1000
VOLUME /var/lib/inflight
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Told by INFLIGHT_TRITON_URL where Triton is: there is none in here.
ENTRYPOINT ["python", "-m", "frontend"]
CMD ["serve", "--host", "0.0.0.0"]
