# syntax=docker/dockerfile:1
# Build: docker build -t llm-sidecar .      Run: the README's chapter on deploying says how.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.txt requirements-build.txt ./
RUN python -m venv /opt/venv \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements.txt
COPY pyproject.toml README.md LICENSE ./
COPY proxy proxy
COPY policies policies
RUN python -m venv /tmp/builder \
 && /tmp/builder/bin/pip install --no-cache-dir --no-deps --require-hashes -r requirements-build.txt \
 && /tmp/builder/bin/python -m pip wheel --no-deps --no-build-isolation -w /tmp/wheel . \
 && /opt/venv/bin/pip install --no-cache-dir --no-deps --no-index /tmp/wheel/*.whl \
 && /opt/venv/bin/python -m compileall -q /opt/venv \
 && /opt/venv/bin/pip uninstall -q -y setuptools pip

FROM python:3.13-slim
LABEL org.opencontainers.image.title="llm-sidecar" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
USER 65534:65534
WORKDIR /etc/llm-sidecar
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 \
  CMD ["python", "-c", "import os,urllib.request as u; u.urlopen(os.environ.get('LLM_SIDECAR_URL', 'http://127.0.0.1:8080') + '/healthz', timeout=2)"]
ENTRYPOINT ["llm-sidecar"]
CMD ["serve"]
