#!/usr/bin/env bash
# One job over several nodes: start this on every node, with the same arguments, as they would follow `featviz`.
#
#   NODES=2 NODE=0 MAIN=10.0.0.1 DEVICES=8 torchrun.sh sweep squeezenet1_0 'features.*:all' -o /shared/atlas
#
# NODES: how many; NODE: which this is, from 0; MAIN: address of node 0; DEVICES: of every node; PORT: free on node 0.
set -euo pipefail

exec torchrun \
    --nnodes "${NODES:?how many nodes}" --node-rank "${NODE:?which node this is, from 0}" \
    --nproc-per-node "${DEVICES:?how many devices every node has}" \
    --master-addr "${MAIN:?address of node 0}" --master-port "${PORT:-29400}" \
    --no-python featviz "$@" --num-nodes "$NODES" --devices "$DEVICES"
