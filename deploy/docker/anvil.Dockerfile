# Development only: a private Ethereum chain. Foundry's anvil as npm ships it, at the version that deploy/anvil pins.
FROM node:22-bookworm-slim
WORKDIR /opt/anvil
COPY deploy/anvil/package.json deploy/anvil/package-lock.json ./
# npm passes over an optional package that it cannot get, such as one for another platform: without anvil this must fail.
RUN npm ci --omit=dev --no-audit --no-fund \
    && rm -rf /root/.npm \
    && node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil --version \
    && install -d -o node -g node /chain
COPY --chmod=755 deploy/docker/anvil.sh deploy/docker/anvil-health.mjs ./
USER node
VOLUME /chain
EXPOSE 8545
HEALTHCHECK --interval=3s --timeout=5s --start-period=10s --retries=3 CMD ["node", "/opt/anvil/anvil-health.mjs"]
ENTRYPOINT ["/opt/anvil/anvil.sh"]
