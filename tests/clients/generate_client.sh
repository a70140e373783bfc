#!/bin/sh
# Generates the TypeScript client from openapi.yaml into target/clients/typescript/sdk and compiles it, with its driver
# ts_client.ts, under `strict` into target/clients/typescript/js. Fails where either does not work.
# OPENAPI=<absolute path> takes another description. Needs `make clients` to have been run.
set -eu
cd "$(dirname "$0")"
out=../../target/clients/typescript

rm -rf "$out"
mkdir -p "$out"
node_modules/.bin/openapi-ts
cp ts_client.ts "$out"
echo '{"type":"module"}' > "$out/package.json"
node_modules/.bin/tsc --project tsconfig.json
