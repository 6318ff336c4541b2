FROM nvidia/cuda:12.4.0-runtime-ubuntu24.04 AS requirements
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK="1" PIP_NO_CACHE_DIR="1"
COPY ["requirements.txt", "/tmp/requirements.txt"]
RUN pip install -r /tmp/requirements.txt papermill ipykernel

FROM nvidia/cuda:12.4.0-runtime-ubuntu24.04
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN groupadd --non-unique --gid 1090 labfunctions && useradd --non-unique --uid 1089 --gid 1090 --create-home labfunctions
COPY --from=requirements /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED="1"
WORKDIR /app
COPY --chown=1089:1090 . /app
USER 1089:1090
