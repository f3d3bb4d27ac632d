# syntax=docker/dockerfile:1
#
#   docker build -t pushforward .                   CPU (onnxruntime)
#   docker build -t pushforward --target gpu .      CUDA 13 (onnxruntime-gpu)
#   docker build -t pushforward --target slim .     CPU without PyTorch: models with their graphs
#
# It listens on all addresses of its container, so it does not start without keys:
#
#   docker run -p 8000:8000 -e PUSHFORWARD_API_KEYS=$(openssl rand -hex 16) pushforward
#   docker run -p 127.0.0.1:8000:8000 -e PUSHFORWARD_ALLOW_UNAUTHENTICATED=true pushforward
#
# PIP_EXTRA_INDEX_URL: give PyTorch's CPU index for a CPU image without the CUDA libraries that
# the default torch wheel brings along.

ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:${PATH}
WORKDIR /src
COPY pyproject.toml constraints.txt ./
# Packages that hold nothing yet, to install what they require.
RUN touch README.md LICENSE NOTICE && mkdir pushforward models service

FROM build AS wheel
COPY README.md LICENSE NOTICE ./
COPY pushforward pushforward
COPY models models
COPY service service
RUN pip wheel --no-deps --wheel-dir /dist .

# The dependencies are a layer of their own: a change of the code does not install torch again.
FROM build AS build-cpu
RUN pip install '.[cpu,grpc,hub,otel]' -c constraints.txt
COPY --from=wheel /dist /dist
RUN pip install --no-deps --force-reinstall /dist/*.whl

FROM build AS build-slim
RUN pip install '.[onnx,grpc,hub,otel]' -c constraints.txt
COPY --from=wheel /dist /dist
RUN pip install --no-deps --force-reinstall /dist/*.whl

FROM build AS build-gpu
RUN pip install '.[gpu,grpc,hub,otel]' -c constraints.txt
# Both bring code for one major version of CUDA: torch's own libraries serve onnxruntime too.
RUN python -c "import onnxruntime as o, torch as t; built = t.version.cuda or 'none', o.cuda_version or 'none'; assert built[0].split('.')[0] == built[1].split('.')[0], f'torch and onnxruntime are built for CUDA {built}'"
COPY --from=wheel /dist /dist
RUN pip install --no-deps --force-reinstall /dist/*.whl

# What runs: no compiler, no pip cache, no source tree; writes nothing outside /tmp.
FROM python:${PYTHON_VERSION}-slim-bookworm AS runtime
ARG VERSION=0.2.0
LABEL org.opencontainers.image.title="pushforward" \
      org.opencontainers.image.description="Serves trained normalizing flows over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
ENV PATH=/opt/venv/bin:${PATH} \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
# The zoo; a volume on /models takes its place.
COPY models/zoo /models
WORKDIR /
USER 10001:10001
# HTTP; gRPC, where PUSHFORWARD_GRPC_PORT=8001 asks for it.
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
# ready = every model loaded, its golden rows replayed, warmed up. Proxies of the host are ignored.
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib import request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["pushforward"]
CMD ["serve", "/models", "--host", "0.0.0.0", "--port", "8000"]

# Without a GPU it does not start, rather than compute on a CPU that nobody meant.
FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PUSHFORWARD_DEVICE=cuda
COPY --from=build-gpu /opt/venv /opt/venv

FROM runtime AS slim
COPY --from=build-slim /opt/venv /opt/venv

# Last, so that a plain `docker build .` makes it.
FROM runtime AS cpu
COPY --from=build-cpu /opt/venv /opt/venv
