# ---- From here on every run's script is the same. -------------------------------------------

# What each node does: a preflight if there is one, then one torchrun for its processes.
node_program=$(cat <<'NODE'
  exec > "$logs/node_$SLURMD_NODENAME.log" 2>&1
  # Forwarded by srun to every process of the node: torchrun would die of it, its trainers save.
  trap '' USR1
  if [ -n "$preflight" ] && ! bash -c "$preflight"; then
    echo "$SLURMD_NODENAME preflight failed in $attempt" >> "$run_dir/bad_nodes.txt"
    exit 90
  fi
  # torchrun's own --node-rank: it is the one argument in which nodes differ. Ranks then follow
  # SLURM's order of nodes, which follows the network's topology.
  PET_NODE_RANK=$SLURM_NODEID "$@"
  status=$?
  echo "$status $(date +%s.%N)" > "$logs/node_$SLURMD_NODENAME.exit"
  # srun ends every other node once one has failed. They get time to end by themselves before, for
  # what they say and when tells a bad node from its victims, and a refusal from a crash.
  for ((tenths = 0; status != 0 && tenths < 200; tenths += 2)); do
    [ "$(compgen -G "$logs/node_*.exit" | wc -l)" -lt "$SLURM_NNODES" ] || break
    sleep 0.2
  done
  exit "$status"
NODE
)

signalled=0 ended=0 step= repeat=0 timer=

say() { echo "[$(date +%H:%M:%S)] $*"; }

# Asks tools/launch.py what to do; it answers with an action, a delay and nodes to exclude.
ask() {
  local answer
  answer=$("${guard[@]}" "$1" --run-dir "$run_dir" --attempt "$attempt" --job "$SLURM_JOB_ID" \
    --nodes-file "$logs/nodes" --usable-file "$logs/usable" --jobs-file "$logs/jobs" \
    --job-file "$logs/job" "${limits[@]}" "${@:2}") || {
    say "the guard failed, so nothing is started or requeued"
    exit 1
  }
  read -r action delay exclude <<< "$answer"
}

# What SLURM knows, in files, so that a guard in a container needs no SLURM.
note() {
  mkdir -p "$logs"
  scontrol show hostnames "$SLURM_JOB_NODELIST" > "$logs/nodes"
  sinfo --noheader --Node --partition="$SLURM_JOB_PARTITION" --format=%N \
    --states=idle,alloc,mix,comp,resv > "$logs/usable" || rm -f "$logs/usable"
  squeue --noheader --format=%A \
    --states=RUNNING,COMPLETING,SUSPENDED,STOPPED,CONFIGURING,SIGNALING,STAGE_OUT \
    > "$logs/jobs" || rm -f "$logs/jobs"
  scontrol --oneliner show job "$SLURM_JOB_ID" > "$logs/job" || rm -f "$logs/job"
}

# The warning before the limit (and a preemption's): every trainer is to save and stop. The file
# says the same to trainers that the signal does not reach.
warned() {
  [ "$signalled" = 0 ] || return
  signalled=1
  say "time is up: asking the run to save and stop, for $grace seconds"
  echo "time limit of job $SLURM_JOB_ID" > "$run_dir/stop"
  [ -z "$step" ] || kill -USR1 "$step" 2> /dev/null
  { sleep "$grace"; scancel --signal=KILL "$SLURM_JOB_ID"; } &
  timer=$!
}

# SIGTERM comes with the limit, with scancel and with a requeue by others, and then the job is over
# already; a job that still runs is being preempted and has some time.
terminated() {
  if [ "$(squeue --noheader --jobs="$SLURM_JOB_ID" --format=%T)" = RUNNING ]; then
    warned
  else
    ended=1
  fi
}

# One attempt: srun starts the node program on every node. The status is srun's.
run_step() {
  local first port status last
  # Below the ports that the system hands out by itself, and another one for each attempt: a
  # torchrun of the last that still waits for its peers would hold on to its own.
  port=$((20000 + $(cksum <<< "$attempt" | cut -d ' ' -f 1) % 12000))
  first=$(head -n 1 "$logs/nodes")
  # The address that SLURM itself uses for the node, since names of nodes need not resolve.
  first=$(scontrol --oneliner show node "$first" | grep -o 'NodeAddr=[^ ]*' | cut -d= -f2)
  srun "${srun_options[@]}" bash -c "$node_program" node "${torchrun[@]}" \
    --master-addr="$first" --master-port="$port" \
    "${program[@]}" &
  step=$!
  [ "$signalled" = 0 ] || kill -USR1 "$step"
  while :; do
    wait "$step"
    status=$?  # of srun, or of a signal that interrupted the wait
    [ "$ended" = 0 ] && kill -0 "$step" 2> /dev/null || break
  done
  if [ "$ended" = 0 ]; then
    wait "$step" 2> /dev/null
    last=$?
    [ "$last" = 127 ] || status=$last
  fi
  step=
  return "$status"
}

# A requeued job is pending but cannot start before this script has ended, so it can be changed.
requeue() {
  trap '' TERM
  if [ "$may_requeue" = 0 ]; then
    say "not requeued (slurm.requeue=false): the next job of the chain goes on"
    return
  fi
  # The controller may be away for a moment, and the run would end with it.
  for pause in 5 30 60 0; do
    scontrol requeue "$SLURM_JOB_ID" && break
    sleep "$pause"
  done
  [ -z "$1" ] || scontrol update JobId="$SLURM_JOB_ID" ExcNodeList="$1${never:+,$never}"
  # SLURM itself would hold a requeued job back for a minute or two.
  scontrol update JobId="$SLURM_JOB_ID" StartTime="now+$(($2 > 0 ? $2 : 1))"
}

trap '[ -z "$timer" ] || kill "$timer"' EXIT
trap warned USR1
trap terminated TERM
while :; do
  attempt=${SLURM_JOB_ID}_${SLURM_RESTART_COUNT:-0}
  [ "$repeat" = 0 ] || attempt+=_$repeat
  logs=$run_dir/logs/slurm/$attempt
  export run_dir attempt logs preflight
  note
  ask start
  if [ "$action" = start ]; then
    run_step
    status=$?
    note
    left=$((time_limit - SECONDS - 2 * signal_seconds))
    ask end --exit-status "$status" --signalled "$signalled" --seconds-left "$left"
  fi
  [ "$action" = again ] || break
  repeat=$((repeat + 1))
  sleep "$delay" & wait $!
done
[ "$action" != requeue ] || requeue "$exclude" "$delay"
say "over: $action"
# A refusal is a failed job, so that SLURM's mail says so.
[ "$action" != refuse ]
