# The pipeline with all that it needs, and the bundled sample:
#
#   docker build -t alexnet-cifar10 .                          # --build-arg GPU=1 adds NVIDIA's CUDA libraries
#   docker run --rm -v alexnet:/app/outputs alexnet-cifar10    # trains, gates, pushes into the volume
#   docker run --rm -v alexnet:/app/outputs alexnet-cifar10 make run PROFILE=smoke
#
# Kubeflow runs its steps in this image; pipeline/docker-compose.yml adds TensorFlow Serving.

FROM python:3.13-slim-trixie AS build
# A compiler for two of TFX's dependencies, which are published as source. Debian's release fixes its version well enough.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /app
ARG GPU=0
ENV GPU=${GPU} RUNTIME=1 PYTHON=/usr/local/bin/python3 UV_NO_CACHE=1 UV_LINK_MODE=copy \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
# Only what the environment is made from: edited code does not install it anew.
COPY pyproject.toml requirements.lock requirements-gpu.lock .python-version ./
COPY pipeline/environment.py pipeline/
COPY surroundings/ surroundings/
RUN python3 pipeline/environment.py && rm -rf .tools .venv.lock
COPY . .
# The user of the final stage may not write bytecode beside the code.
RUN python3 -m compileall -q components models pipeline serving surroundings

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="alexnet-cifar10-tfx" \
      org.opencontainers.image.description="CIFAR-10 in, a gated and served AlexNet out: a TFX pipeline" \
      org.opencontainers.image.licenses="Apache-2.0"
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home alexnet \
    && install --directory --owner=alexnet /app/outputs
COPY --from=build /app /app
WORKDIR /app
ENV PATH=/app/.venv/bin:$PATH RUNTIME=1 PYTHONUNBUFFERED=1 PYTHONWARNINGS=ignore::FutureWarning TF_CPP_MIN_LOG_LEVEL=3
# On the volume: the official archive is downloaded once.
ENV CIFAR10_CACHE_DIR=/app/outputs/cache
USER 1000
VOLUME /app/outputs
# A run that cannot write where its outputs belong, or whose code does not load, is not healthy.
HEALTHCHECK --interval=60s --timeout=10s CMD ["sh", "-c", "test -w /app/outputs && python -m pipeline.local_runner --help >/dev/null"]
CMD ["python", "-m", "pipeline.local_runner"]
