FROM python:3.11-slim AS requirements
RUN python3 -m venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PIP_DISABLE_PIP_VERSION_CHECK="1" PIP_NO_CACHE_DIR="1"
COPY ["deps/all.txt", "/tmp/requirements.txt"]
RUN pip install -r /tmp/requirements.txt papermill ipykernel

FROM python:3.11-slim
RUN groupadd --non-unique --gid 1090 labfunctions && useradd --non-unique --uid 1089 --gid 1090 --create-home labfunctions
COPY --from=requirements /opt/venv /opt/venv
ENV PATH="/opt/venv/bin:$PATH" PYTHONUNBUFFERED="1"
WORKDIR /app
COPY --chown=1089:1090 . /app
USER 1089:1090
