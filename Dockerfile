# One image with the three binaries: static, without a shell, not root.
# Cross-compiles: docker buildx build --platform linux/amd64,linux/arm64 .
FROM --platform=$BUILDPLATFORM node:20.20-bookworm-slim AS page
WORKDIR /src/web
COPY web/package.json web/package-lock.json web/.npmrc ./
RUN npm ci --no-audit --no-fund
COPY web ./
RUN npm run build

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=page /src/web/dist web/dist
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w" -o /out/ ./cmd/... \
 && mkdir -p /out/empty

FROM scratch
COPY --from=build /out/binnacle-manager /out/binnacle-gateway /out/binnacle /usr/local/bin/
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
# Volumes begin with the owner of the folder that they cover.
COPY --from=build --chown=65532:65532 /out/empty /data
COPY --from=build --chown=65532:65532 /out/empty /tokens
COPY --from=build --chown=65532:65532 --chmod=1777 /out/empty /tmp
USER 65532:65532
ENV PATH=/usr/local/bin
CMD ["binnacle", "--help"]
