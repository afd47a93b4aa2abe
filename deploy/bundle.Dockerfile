# syntax=docker/dockerfile:1
# The image of one bundle. It lies in every bundle as env/docker/Dockerfile: `bentoml containerize TAG` uses it, and so
# can `docker build -f env/docker/Dockerfile .` in the folder of an exported bundle.
#
# Nothing is compiled from source, so no compiler is needed; only the second stage, without pip, is shipped.
ARG PYTHON=python:{{ __options__python_version }}-slim

FROM ${PYTHON} AS built
RUN python -m venv --without-pip /opt/serving
COPY env/python/*.txt /tmp/
RUN pip --python /opt/serving/bin/python install --no-cache-dir --only-binary :all: \
    --requirement /tmp/requirements.txt --constraint /tmp/constraints.txt
COPY . /bundle
WORKDIR /bundle/src
ENV PATH=/opt/serving/bin:$PATH PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1 \
    # machine code for any processor of this architecture: another model would have no use for that of the builder's
    NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=/opt/kernels
RUN python -m serving.verify --no-state /bundle && python -m serving.warm

FROM ${PYTHON}
COPY --from=built /opt/serving /opt/serving
COPY --from=built /opt/kernels /opt/kernels
COPY --from=built /bundle /bundle
ENV PATH=/opt/serving/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 \
    NUMBA_CPU_NAME=generic NUMBA_CACHE_DIR=/tmp/kernels \
    HOME=/tmp BENTOML_HOME=/tmp/bentoml BENTOML_HOST=0.0.0.0 BENTOML_DO_NOT_TRACK=true ORT_DISABLE_TELEMETRY=1 \
    CLICKTRAIL_HOME=/var/lib/clicktrail
# a new volume that is mounted here takes its owner over
RUN install -d -o 10001 -g 10001 /var/lib/clicktrail
# a number, so that Kubernetes sees that it is not root; everything above is root's and read-only to it
USER 10001:10001
WORKDIR /tmp
EXPOSE 3000
# numba wants to write where it reads: /tmp is all that the container may write to
ENTRYPOINT ["sh", "-c", "cp -r /opt/kernels/. \"$NUMBA_CACHE_DIR\" && exec bentoml serve /bundle \"$@\"", "serve"]
