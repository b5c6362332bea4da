# Two images of the course. docs/gpu.md says what was tried of them.
#
#   docker build --target cpu -t multistage .
#   docker run --rm -p 127.0.0.1:8888:8888 -e JUPYTER_TOKEN=... \
#     -v multistage-notebooks:/course/notebooks -v multistage-workspace:/course/workspace multistage
#
# Target cpu is for x86-64 and 64-bit Arm, as its base and the lock are.

FROM python:3.11.11-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /course
COPY Makefile pyproject.toml ./
COPY requirements requirements
COPY src src
RUN make setup PYTHON=python3.11 && rm -rf ~/.cache

FROM python:3.11.11-slim-bookworm AS cpu
RUN apt-get update \
 && apt-get install -y --no-install-recommends make libgomp1 \
 && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 attendee \
 && install -d -o attendee -g attendee /course /course/build /course/workspace
COPY --from=build --chown=attendee:attendee /course /course
COPY --chown=attendee:attendee . /course
WORKDIR /course
ENV PATH=/course/.venv/bin:$PATH
USER attendee
EXPOSE 8888
HEALTHCHECK --interval=30s --start-period=30s CMD \
  ["python", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8888/api', timeout=5)"]
# It first prints which data no volume keeps.
ENTRYPOINT ["sh", "/course/requirements/container.sh"]
# All interfaces of the container: from outside, its loopback cannot be reached. Who may reach the
# port is for `docker run -p 127.0.0.1:8888:8888` to say. Without JUPYTER_TOKEN Jupyter makes a
# token up and prints it.
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--notebook-dir=notebooks"]

# NGC's image has TensorFlow, cuDF, Merlin 23.8 and Triton for its own Python. Only what is missing is
# added, at the lock's versions where the lock names it. Never built here.
FROM nvcr.io/nvidia/merlin/merlin-tensorflow:23.08 AS gpu
RUN python3 -c "import sys; assert sys.version_info[:2] == (3, 10), sys.version"
RUN python3 -m pip install --no-cache-dir \
    faiss-gpu-cu11==1.8.0.2 \
    feast[redis]==0.43.0 \
    implicit==0.7.3 \
    ipywidgets==8.1.9 \
    jupytext==1.19.6 \
    merlin-models==23.12.0 \
    nbgrader==0.9.5 \
    nbval==0.11.0 \
    pandera==0.22.1 \
    papermill==2.7.0 \
    ranx==0.3.21 \
    typer==0.28.0 \
    xgboost==2.0.3
RUN install -d -o 1000 -g 1000 /course /course/build /course/workspace
COPY --chown=1000:1000 . /course
WORKDIR /course
RUN python3 -m pip install --no-cache-dir --no-deps --no-build-isolation -e . \
 && install -D -m 644 requirements/jupyterlab.json /etc/jupyter/labconfig/page_config.json \
 && install -D -m 644 requirements/jupyter_server_config.json -t /etc/jupyter \
 && install -D -m 644 requirements/ipython_kernel_config.json -t /etc/ipython
USER 1000
ENV HOME=/course/workspace
EXPOSE 8888
HEALTHCHECK --interval=30s --start-period=60s CMD \
  ["python3", "-c", "import urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:8888/api', timeout=5)"]
ENTRYPOINT ["sh", "/course/requirements/container.sh"]
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--notebook-dir=notebooks"]
