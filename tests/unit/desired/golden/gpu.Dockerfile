FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04 AS requirements
RUN apt-get update && apt-get install --yes --no-install-recommends python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK="1" PIP_NO_CACHE_DIR="1"
COPY ["requirements.txt", "/tmp/requirements.txt"]
RUN pip install -r /tmp/requirements.txt papermill ipykernel

FROM nvidia/cuda:12.8.1-cudnn-runtime-ubuntu24.04
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN groupadd --non-unique --gid 6000 labfunctions && useradd --non-unique --uid 5000 --gid 6000 --create-home labfunctions
COPY --from=requirements /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED="1"
WORKDIR /app
COPY --chown=5000:6000 . /app
USER 5000:6000
