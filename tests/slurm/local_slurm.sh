#!/usr/bin/env bash
# A Slurm of two nodes, both this machine, for the tests: local_slurm.sh start | stop
#
# Debian's packages slurmctld, slurmd, slurm-client and munge, and root, are needed. Each node offers
# four cores, whatever the machine has, and one stand-in GPU; jobs of the partition `urgent` preempt those of the
# others; a job that is put back waits half a minute (cred_expire). Everything but the two files that Slurm's
# commands look for, /etc/slurm/slurm.conf and gres.conf, lives in $SLURM_LOCAL.
set -euo pipefail

HOME_=${SLURM_LOCAL:-/run/local-slurm}
CONFIG=/etc/slurm
MARK="# written by tests/slurm/local_slurm.sh"
NODES=(one two)
HOST=$(hostname -s)
CORES=4 # whatever the machine has: jobs that ask for four must fit
MEMORY_MB=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)

ours() { [ ! -e "$1" ] || grep -qxF "$MARK" "$1"; }

configure() {
  for file in slurm.conf gres.conf; do
    ours "$CONFIG/$file" || { echo "$CONFIG/$file is another cluster's: not touched" >&2; exit 1; }
  done
  mkdir -p "$CONFIG" "$HOME_/state"
  {
    echo "$MARK"
    cat <<CONF
ClusterName=tests
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=17817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$HOME_/munge.socket,cred_expire=30
CredType=cred/munge
StateSaveLocation=$HOME_/state
SlurmctldPidFile=$HOME_/slurmctld.pid
SlurmctldLogFile=$HOME_/slurmctld.log
SlurmdPidFile=$HOME_/slurmd-%n.pid
SlurmdLogFile=$HOME_/slurmd-%n.log
SlurmdSpoolDir=$HOME_/spool-%n
SlurmdTimeout=10
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
MinJobAge=3600
GresTypes=gpu
CONF
    local port=17820
    for node in "${NODES[@]}"; do
      echo "NodeName=$node NodeHostname=$HOST NodeAddr=127.0.0.1 Port=$port CPUs=$CORES RealMemory=$MEMORY_MB Gres=gpu:1"
      port=$((port + 1))
    done
    echo "PartitionName=cpu Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=FORCE:4"
    echo "PartitionName=gpu Nodes=ALL MaxTime=INFINITE OverSubscribe=FORCE:4"
    echo "PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF"
  } >"$CONFIG/slurm.conf"
  echo "$MARK" >"$CONFIG/gres.conf"
  for node in "${NODES[@]}"; do
    mkdir -p "$HOME_/spool-$node"
    : >"$HOME_/gpu-$node"
    echo "NodeName=$node Name=gpu File=$HOME_/gpu-$node" >>"$CONFIG/gres.conf"
  done
}

start() {
  configure
  if [ ! -s "$HOME_/munge.key" ]; then
    (umask 077; head -c 256 /dev/urandom >"$HOME_/munge.key")
  fi
  munged --force --key-file="$HOME_/munge.key" --socket="$HOME_/munge.socket" \
    --pid-file="$HOME_/munged.pid" --log-file="$HOME_/munged.log" --seed-file="$HOME_/munged.seed"
  slurmctld -c
  for node in "${NODES[@]}"; do slurmd -N "$node"; done
  for _ in $(seq 100); do
    [ "$(sinfo --noheader --Node --partition cpu --format %T 2>/dev/null | grep -cx idle)" = "${#NODES[@]}" ] && return
    sleep 0.3
  done
  echo "the nodes did not come up:" >&2
  sinfo >&2 || true
  tail -n 15 "$HOME_"/*.log >&2
  exit 1
}

stop() {
  if [ -e "$CONFIG/slurm.conf" ] && ours "$CONFIG/slurm.conf"; then
    scancel --state=RUNNING,PENDING --user="$(id -un)" 2>/dev/null || true
  fi
  for name in slurmd-one slurmd-two slurmctld munged; do
    pid=$(cat "$HOME_/$name.pid" 2>/dev/null) || continue
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.2; done
    rm -f "$HOME_/$name.pid"
  done
  for file in slurm.conf gres.conf; do
    if ours "$CONFIG/$file"; then rm -f "$CONFIG/$file"; fi
  done
}

case "${1:-}" in
  start) start ;;
  stop) stop ;;
  *) echo "usage: local_slurm.sh start | stop" >&2; exit 2 ;;
esac
