# syntax=docker/dockerfile:1
# What is needed beside the bundles, in one image: the intake, the updater and `feast apply`.
#   docker build -f deploy/live.Dockerfile -t clicktrail-live .
# Neither torch nor Great Expectations are in it: what trains and what gates whole files runs from a checkout.
ARG PYTHON=python:3.11-slim

FROM ${PYTHON} AS built
RUN python -m venv --without-pip /opt/live
COPY deploy/live.lock /tmp/live.lock
RUN pip --python /opt/live/bin/python install --no-cache-dir --only-binary :all: --no-deps --require-hashes \
    --requirement /tmp/live.lock
COPY clicktrail /app/clicktrail
COPY feature_repo /app/feature_repo
COPY ingestion /app/ingestion
COPY validation /app/validation

FROM ${PYTHON}
COPY --from=built /opt/live /opt/live
COPY --from=built /app /app
ENV PATH=/opt/live/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 \
    HOME=/tmp NUMBA_CACHE_DIR=/tmp/kernels FEAST_USAGE=False CLICKTRAIL_HOME=/var/lib/clicktrail
# a new volume that is mounted here takes its owner over
RUN install -d -o 10001 -g 10001 /var/lib/clicktrail
# a number, so that Kubernetes sees that it is not root; everything above is root's and read-only to it
USER 10001:10001
WORKDIR /tmp
EXPOSE 8080 9465
CMD ["python", "-m", "ingestion.http_intake", "--host", "0.0.0.0", "--port", "8080"]
