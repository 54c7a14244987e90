# One file, three images; in the project's folder:
#   docker build -t gence .                       the book and its pages: docker run -p 8000:8000 gence
#   docker build -t gence-tools --target tools .  what `make` needs beside Python; the devcontainer starts from it
#   docker build -t gence-jobs --target jobs .    jobs of a cluster, with CUDA: workflow/profiles/kubernetes
FROM python:3.12-slim-bookworm AS base
# hadolint ignore=DL3008  # Debian's stable release is the pin
RUN apt-get update && apt-get install -y --no-install-recommends git rsync && rm -rf /var/lib/apt/lists/*
WORKDIR /gence

FROM base AS jobs
COPY . .
RUN pip install --no-cache-dir -c constraints.txt '.[cluster]'
# Where the profile mounts the volume.
ENV GENCE_DATA=/mnt/gence/data

FROM base AS tools
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends chromium make && rm -rf /var/lib/apt/lists/*
# PyTorch without CUDA, a tenth of the size.
ENV PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PIP_NO_CACHE_DIR=1

FROM tools AS book
COPY . .
RUN make html
EXPOSE 8000
CMD ["make", "serve"]
