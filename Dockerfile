# The server, on the CPU, as a user without rights; docs/serve.md has the command that runs it.
FROM python:3.12-slim

# PyTorch's index of builds without CUDA, a tenth of the size.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu "torch>=2.6"
COPY pyproject.toml README.md LICENSE /source/
COPY src /source/src
RUN pip install --no-cache-dir "/source[explain,serve]" && rm -r /source

RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin einthoven
USER 10001
# Nothing is written but these caches of libraries; the file system may be read-only.
ENV HOME=/tmp MPLCONFIGDIR=/tmp NUMBA_CACHE_DIR=/tmp PYTHONDONTWRITEBYTECODE=1

EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["python", "-c", \
  "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["einthoven", "serve", "--host", "0.0.0.0"]
CMD ["einthoven-small"]
