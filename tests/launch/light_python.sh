#!/bin/bash
# An interpreter that stands in for torchrun too, whose imports take seconds: it starts the ranks
# of its node and reports as torchrun does those that failed. Everything else is python's.
[ "$2" = torch.distributed.run ] || exec "$REAL_PYTHON" "$@"
for argument in "${@:3}"; do
  case $argument in
    --nproc-per-node=*) processes=${argument#*=} ;;
    --*) ;;
    *) break ;;
  esac
done
program=("${@:3}")
while [[ ${program[0]} == --* ]]; do program=("${program[@]:1}"); done
for ((local_rank = 0; local_rank < processes; local_rank++)); do
  LOCAL_RANK=$local_rank RANK=$((PET_NODE_RANK * processes + local_rank)) \
    "$REAL_PYTHON" "${program[@]}" &
  ranks[local_rank]=$!
done
failed=0
for rank in "${ranks[@]}"; do
  wait "$rank"
  status=$?
  [ "$status" -le 128 ] || status=$((128 - status))
  [ "$status" = 0 ] || { failed=1; echo "exitcode  : $status (pid: $rank)"; }
done
exit "$failed"
