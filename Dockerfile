# One image for every role. It is set up by the same script as on a desk, so that what is tested is what runs.
FROM python:3.13-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home trinity

WORKDIR /srv/trinity
COPY --chown=trinity . .
RUN chown trinity . && install -d -o trinity -g trinity -m 700 /var/lib/trinity
USER trinity

ENV PYTHONUNBUFFERED=1 TRINITY_BIND=0.0.0.0 TRINITY_DATA_DIR=/var/lib/trinity
RUN ./run manage help >/dev/null
# After the setting up, which needs none of the secrets that these settings insist on: docs/operations.md.
ENV DJANGO_SETTINGS_MODULE=trinity_site.settings.prod
VOLUME /var/lib/trinity
EXPOSE 8080 8081 9090 9091

# Prices live in /dev/shm: the usual board takes 2.8 MB there, Docker gives 64.
ENTRYPOINT ["./run"]
CMD ["up"]
