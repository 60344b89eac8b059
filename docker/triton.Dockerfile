# NVIDIA's Triton with TensorRT-LLM 1.2.1, the last release with engines, and our models and builders in it. An engine is
# loaded by the version that built it alone, so the same image builds and serves. Context: the repository's root.
#   docker build -f docker/triton.Dockerfile -t inflight-triton .
FROM nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3
# Behind the image's own packages on the interpreter's path: they only fill in what it lacks, and change nothing that
# tensorrt_llm was tested with. By a .pth file, since Triton's Python backend does not read PYTHONPATH.
COPY docker/frontend.lock /opt/inflight/frontend.lock
RUN python3 -m pip install --no-cache-dir --no-deps --require-hashes \
      --target /opt/inflight/packages -r /opt/inflight/frontend.lock \
 && python3 -c "import pathlib, sysconfig; pathlib.Path(sysconfig.get_path('purelib'), 'zz-inflight.pth').write_text('/opt/inflight\n/opt/inflight/packages\n')" \
 && install -d -o 1000 -g 1000 /var/lib/inflight
COPY triton_models /opt/inflight/triton_models
COPY build_engines /opt/inflight/build_engines
COPY frontend /opt/inflight/frontend
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    INFLIGHT_HOME=/var/lib/inflight
WORKDIR /var/lib/inflight
# triton-server of NVIDIA's image
USER 1000:1000
VOLUME /var/lib/inflight
EXPOSE 8001 8002
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --retries=3 \
  CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8003/v2/health/ready', timeout=4)"]
CMD ["python3", "-m", "frontend", "triton", "--host", "0.0.0.0"]
