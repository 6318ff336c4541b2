FROM python:3.11-slim AS requirements
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libpq-dev=15.1-1 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK="1" PIP_NO_CACHE_DIR="1"
COPY ["requirements.txt", "/tmp/requirements.txt"]
RUN pip install -r /tmp/requirements.txt

FROM python:3.11-slim
RUN apt-get update && apt-get install --yes --no-install-recommends graphviz libpq5 && rm -rf /var/lib/apt/lists/*
RUN groupadd --non-unique --gid 1090 labfunctions && useradd --non-unique --uid 1089 --gid 1090 --create-home labfunctions
COPY --from=requirements /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED="1"
WORKDIR /app
COPY --chown=1089:1090 . /app
USER 1089:1090
