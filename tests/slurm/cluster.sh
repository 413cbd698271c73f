#!/usr/bin/env bash
# A Slurm cluster of two nodes on this machine, for tests: cluster.sh check|start|stop [DIR]. It needs root, slurm-wlm and
# munge; "check" says what is missing. After the start, SLURM_CONF=DIR/slurm.conf makes sbatch and the other commands use it.
set -euo pipefail
action=$1 dir=$(realpath -m "${2:-.}") host=$(hostname -s)
export SLURM_CONF="$dir/slurm.conf"

check() {
    if [ "$(id -u)" != 0 ] || ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
        echo "make slurm needs root and the Debian packages slurm-wlm and munge; this is $(id -un)" >&2
        exit 2
    fi
}

# Cancel all jobs: they outlive slurmd. Then end the daemons, and wait for each.
stop() {
    if scancel --user=root 2> /dev/null; then
        for _ in $(seq 60); do
            if [ -z "$(squeue --noheader)" ]; then break; fi
            sleep 0.5
        done
    fi
    for name in slurmd-n1 slurmd-n2 slurmctld munged; do
        if [ -s "$dir/$name.pid" ]; then
            pid=$(cat "$dir/$name.pid")
            kill "$pid" 2> /dev/null || continue
            while kill -0 "$pid" 2> /dev/null; do sleep 0.1; done
        fi
    done
}

start() {
    mkdir -p "$dir"/{state,n1,n2}
    chmod 755 "$dir"
    [ -s "$dir/munge.key" ] || (umask 077 && dd if=/dev/urandom of="$dir/munge.key" bs=1 count=1024 status=none)
    cat > "$SLURM_CONF" << END
ClusterName=bnbench
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmctldPort=16817
AuthType=auth/munge
AuthInfo=socket=$dir/munge.socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd-%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=1
KillWait=10
MpiDefault=none
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=16821 CPUs=1
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=16822 CPUs=1
PartitionName=tests Nodes=n1,n2 Default=YES State=UP MaxTime=60
END
    # Munge wants to know that its files are safe; in a temporary folder, they are not.
    munged --force --key-file "$dir/munge.key" --socket "$dir/munge.socket" --pid-file "$dir/munged.pid" \
        --seed-file "$dir/munge.seed" --log-file "$dir/munged.log" --num-threads 2 2> /dev/null
    slurmctld -c
    slurmd -N n1
    slurmd -N n2
    for _ in $(seq 60); do
        if [ "$(sinfo --noheader --Node --states=idle --format=%N 2> /dev/null | wc -l)" = 2 ]; then return; fi
        sleep 1
    done
    echo "the cluster does not come up" >&2
    exit 1
}

$action
