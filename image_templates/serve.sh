#!/bin/sh
# Starts Triton in an image with exactly one model, given as the first argument; further arguments go to Triton.
set -eu
model=$1
shift
# A release is never changed while it runs, so the calls that could change it get a key that nobody knows.
key=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
closed=model-repository,shared-memory,trace,logging
exec tritonserver \
  --model-repository=/models \
  --backend-directory=/opt/tritonserver/backends \
  --model-control-mode=explicit \
  --load-model="$model" \
  --disable-auto-complete-config \
  --http-port=8000 --grpc-port=8001 --metrics-port=8002 \
  --metrics-config=summary_latencies=true \
  --http-restricted-api="$closed:headgate-key=$key" \
  --grpc-restricted-protocol="$closed:headgate-key=$key" \
  --exit-timeout-secs=3 \
  "$@"
