# The image of the app: what the package needs and none of our tools, by the digests of requirements.lock.

FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.lock ./
COPY scripts/locked.py scripts/
RUN python scripts/locked.py > runtime.lock \
    && python scripts/locked.py build > build.lock \
    && pip install --no-cache-dir --require-hashes -r build.lock \
    && python -m venv --without-pip /opt/hdi \
    && pip --python /opt/hdi/bin/python install --no-cache-dir --require-hashes -r runtime.lock
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && pip --python /opt/hdi/bin/python install --no-cache-dir --no-index --no-deps dist/*.whl

FROM python:3.13-slim
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /app hdi
WORKDIR /app
# A new volume takes its owner from the folder that it covers.
RUN install -d -o hdi -g hdi data dlq logs
COPY --from=build /opt/hdi /opt/hdi
COPY main.py run_mvp_verification.py ./
COPY configs configs
ENV PATH=/opt/hdi/bin:$PATH
USER 10001:10001
# No entrypoint: `hdi ...` and `python main.py ...` are typed in full.
CMD ["hdi", "--help"]
