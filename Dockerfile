# The image of a worker. Any base with Python 3.11 or later and a C library for manylinux wheels will do.
ARG BASE_IMAGE=python:3.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
# uv brings its own certificates; behind a proxy that inspects TLS those of the base image are the right ones.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy UV_NO_CACHE=1 UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY requirements/installer.txt requirements/build.txt requirements/run.txt requirements/
RUN python3 -m venv /opt/installer \
    && /opt/installer/bin/pip install --quiet --require-hashes -r requirements/installer.txt -r requirements/build.txt \
    && python3 -m venv --without-pip /opt/stream \
    && /opt/installer/bin/uv pip install --quiet --python /opt/stream/bin/python --compile-bytecode --only-binary :all: \
       --require-hashes -r requirements/run.txt
COPY native native
RUN native/install.sh /opt/installer/bin/python3 /opt/installer/bin/pip /build/wheels
COPY pyproject.toml README.md LICENSE ./
COPY stream stream
RUN /opt/installer/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /build/wheels . \
    && /opt/installer/bin/uv pip install --quiet --python /opt/stream/bin/python --compile-bytecode --no-deps /build/wheels/*.whl

FROM ${BASE_IMAGE} AS base
ENV PATH=/opt/stream/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
LABEL org.opencontainers.image.title="stream" \
      org.opencontainers.image.description="Kinesis to S3 and Redshift, exactly once, with a record-level audit" \
      org.opencontainers.image.licenses="Apache-2.0"
# Kubernetes can only prove that a user is not root if it is a number.
USER 10001:10001
WORKDIR /tmp
ENTRYPOINT ["/opt/stream/bin/stream"]
COPY --from=build /opt/stream /opt/stream

# Each target is a layer over the same large one, which a registry and a node keep once. RUN --mount needs BuildKit or buildah.
# With a Java runtime and the jars of the Kinesis Client Library: docker build --target kcl .
FROM base AS kcl
USER 0:0
# hadolint ignore=DL3008
RUN apt-get update && apt-get -o Acquire::Retries=3 install --yes --no-install-recommends openjdk-17-jre-headless && rm -rf /var/lib/apt/lists/*
RUN --mount=type=bind,from=build,source=/opt/installer,target=/opt/installer \
    --mount=type=bind,source=requirements,target=/requirements \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy UV_NO_CACHE=1 \
    /opt/installer/bin/uv pip install --quiet --python /opt/stream/bin/python --compile-bytecode --only-binary :all: \
    --require-hashes -r /requirements/kcl.txt
USER 10001:10001

# For a Lambda function, with the AWS runtime interface client: docker build --target lambda . Its pipeline file goes to /var/task.
FROM base AS lambda
USER 0:0
RUN --mount=type=bind,from=build,source=/opt/installer,target=/opt/installer \
    --mount=type=bind,source=requirements,target=/requirements \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt UV_LINK_MODE=copy UV_NO_CACHE=1 \
    /opt/installer/bin/uv pip install --quiet --python /opt/stream/bin/python --compile-bytecode --only-binary :all: \
    --require-hashes -r /requirements/lambda.txt
USER 10001:10001
WORKDIR /var/task
ENTRYPOINT ["/opt/stream/bin/python", "-m", "awslambdaric"]
CMD ["stream.function.handler"]

# The last stage is what a build without --target gives.
FROM base AS run
