# One image for the service and for the nodes of its Ray cluster.
#
#   docker build -t spreadtrain .
#   docker build -t spreadtrain:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .
#
# PYTHON_IMAGE is pinned by the digest of the tag's index of platforms; the README says how to move it.
# TORCH_INDEX is where pip finds the variant of torch; empty, it is pip's own index.
# EXTRAS is for example [features], the image features that some measures of quality use.
ARG PYTHON_IMAGE=docker.io/library/python:3.11.15-slim-bookworm@sha256:d29f48a31a8b408ed19272ca1e7b10ebae13b240a27e862d3d4217c528e2e0c3

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_COMPILE=1
WORKDIR /src
COPY constraints.txt ./
# torch first and by itself: a resolver that meets it as somebody's dependency may choose another build.
RUN python -m venv /opt/spreadtrain \
    && /opt/spreadtrain/bin/pip install ${TORCH_INDEX:+--index-url "${TORCH_INDEX}"} \
        "$(grep '^torch==' constraints.txt)"
# What it depends on before its sources, so that a change of them installs nothing else again.
COPY pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" > requirements.txt \
    && /opt/spreadtrain/bin/pip install --constraint constraints.txt --requirement requirements.txt
COPY . .
# What nothing loads at run time goes, and what stays is compiled once, as the root file system may be
# read-only. Then everything is imported that the product imports.
RUN /opt/spreadtrain/bin/pip install --constraint constraints.txt ".${EXTRAS}" \
    && python deploy/image/slim.py /opt/spreadtrain \
    && /opt/spreadtrain/bin/python -m compileall -q -j 0 /opt/spreadtrain/lib \
    && /opt/spreadtrain/bin/python -c "import api.main, api.cli, ray.tune, ray.train, sklearn, matplotlib.pyplot"

FROM ${PYTHON_IMAGE}
RUN groupadd --gid 10001 spreadtrain \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin spreadtrain \
    && install -d -o 10001 -g 10001 /data
COPY --from=build /opt/spreadtrain /opt/spreadtrain
# The allocator's settings are for attempts on Ray nodes, as the README says.
ENV PATH=/opt/spreadtrain/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    SPREADTRAIN_DATA_DIR=/data \
    RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 \
    MALLOC_ARENA_MAX=1 MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=2147483647
USER 10001:10001
WORKDIR /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=8s --start-period=120s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/readyz', timeout=7)"]
CMD ["spreadtrain", "serve"]
