# syntax=docker/dockerfile:1
# Everything that the commands need on NVIDIA GPUs; docs/container.md says how to build and run it.
# The base has CUDA's compiler, with which DeepSpeed builds its operations at run time, and the torch of constraints.txt.
FROM pytorch/pytorch:2.13.0-cuda13.0-cudnn9-devel

# Triton and DeepSpeed compile C with Python's headers. Versions of Debian packages are those of the base's release.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential git ninja-build python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

# Give the number of your own user, so that files in mounted folders stay yours. The base may have a user of this number.
ARG UID=1000
RUN useradd --create-home --no-log-init --non-unique --uid "$UID" --shell /bin/bash aes \
    && install --directory --owner=aes /work

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY aes_r1 /src/aes_r1
COPY conf /src/conf
COPY sweeps /src/sweeps
COPY hydra_plugins /src/hydra_plugins
# The environment sees the torch of the base, which pip therefore does not download again.
RUN python -m venv --system-site-packages /opt/aes-r1 \
    && /opt/aes-r1/bin/python -m pip install --no-cache-dir --constraint /src/constraints.txt torch==2.13.0 \
        "/src[app,server,photos,kernels,small,ray,launchers,dashboards,tensorboard]"

ENV PATH="/opt/aes-r1/bin:$PATH" HOME=/home/aes
USER $UID
WORKDIR /work
ENTRYPOINT ["aes-r1"]
CMD ["--help"]
